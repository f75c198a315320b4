#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "record/judge/groups.h"
#include "record/judge/verdict.h"

namespace speedrun {

struct JudgedGroup {
    RunGroup group;
    Verdict verdict;
};
// Every group by judge().
std::vector<JudgedGroup> judge_all(const Collection& runs, double target, const RunGroup* baseline = nullptr,
                                   double significance = kSignificance);

// A list of groups: path, n, steps, mean_loss, std_loss, min_loss, max_loss, p_value, mean_time_ms,
// std_time_ms, target, verdict (Verdict::text), reason, excluded[]; more may follow. Numbers that do not
// exist are null.
nlohmann::ordered_json check_json(const std::vector<JudgedGroup>& groups);

// One line a group, then what was left out and why.
std::string check_table(const std::vector<JudgedGroup>& groups);

// For a pull request: a table of the groups and, for each, one of its runs.
std::string check_markdown(const std::vector<JudgedGroup>& groups);

// What a reader must be told besides: unplaced lines, unreadable files. One sentence each, with the file.
std::vector<std::string> collection_warnings(const Collection& runs);

}  // namespace speedrun
