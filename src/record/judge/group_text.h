#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "record/judge/groups.h"

namespace speedrun {

// "log.txt", or "log.txt (run 2)" for another than the first of its file.
std::string run_name(const std::filesystem::path& path, size_t index);

// What the group's statistics leave out: a list of path, run, reason; a line each, "left out: log.txt:
// reason".
nlohmann::ordered_json excluded_json(const RunGroup& group);
std::vector<std::string> excluded_lines(const RunGroup& group);

}  // namespace speedrun
