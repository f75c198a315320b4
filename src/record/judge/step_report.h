#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "record/judge/step_rule.h"

namespace speedrun {

struct StepJudgedGroup {
    RunGroup group;
    StepVerdict verdict;
};

// A list of groups: path, n, scheduled_steps, target, verdict ("valid" or "not valid"), reason, step,
// mean_loss, margin (null without a result), steps[], sources[], hardware[], runs[], excluded[].
nlohmann::ordered_json step_check_json(const std::vector<StepJudgedGroup>& groups);

// One line a group; for each of them a table by step, from the last tenth of the run or from the result
// on, what its runs differ in, and what was left out.
std::string step_check_table(const std::vector<StepJudgedGroup>& groups);
std::string step_check_markdown(const std::vector<StepJudgedGroup>& groups);

// Both results and what the rule makes of them.
nlohmann::ordered_json step_comparison_json(const StepComparison& comparison);
std::string step_comparison_text(const StepComparison& comparison);
std::string step_comparison_markdown(const StepComparison& comparison);

}  // namespace speedrun
