#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "record/log/run_log.h"

namespace speedrun {

// A run as `record parse --json` prints it; needs Run::clock and Run::validations. What the log does not say,
// and numbers that are not finite, are null.
nlohmann::ordered_json run_json(const RunLog& log, size_t index);

// null where `value` is not finite.
nlohmann::ordered_json finite_or_null(double value);

// `json` as text that is valid UTF-8 whatever bytes the logs held.
std::string dump_json(const nlohmann::ordered_json& json);

}  // namespace speedrun
