#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace speedrun {

// A leaf (anything but a non-empty object or array) in which two JSON documents differ.
struct JsonDifference {
    std::string path;           // "schedule.stages[2].start"
    std::string before, after;  // as JSON; "(absent)" where there is none
};

// Sorted by path.
std::vector<JsonDifference> json_diff(const nlohmann::ordered_json& before,
                                      const nlohmann::ordered_json& after);

}  // namespace speedrun
