#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "record/judge/groups.h"
#include "record/judge/statistics.h"
#include "util/text_table.h"

namespace speedrun {

// One side of a comparison.
struct Side {
    RunGroup group;
    Summary loss, time_ms, step_ms;  // step_ms: final time / steps, of each run
};

// What a change brought. Differences are new minus baseline: negative times are a gain.
struct Comparison {
    Side baseline, changed;
    Interval loss, time_ms, step_ms;      // of means, Welch
    std::optional<Interval> paired_time;  // of the means of pairs of runs that followed each other
    int64_t steps = 0;                    // difference
    // time = steps * step_ms, so the difference of times is the sum of these two, each taken at the mean of
    // what the other factor was before and after.
    double by_steps_ms = 0;           // what fewer (or more) steps did
    double by_step_time_ms = 0;       // what faster (or slower) steps did
    std::optional<bool> interleaved;  // the runs took turns; unknown where the logs hold no dates
    std::vector<std::string> warnings;
};

// Both groups hold a run; UserError otherwise. `paired`: also compare the i-th run of one side with the i-th
// of the other, in the order in which they were started (by file name where the logs hold no dates);
// UserError unless the sides are of one size.
Comparison compare_groups(const RunGroup& baseline, const RunGroup& changed, double confidence = 0.95,
                          bool paired = false);

nlohmann::ordered_json comparison_json(const Comparison& comparison);
// The same for readers: the table that the next two print, and "time: -12.0 ms (-1.00 %) = ... by the number
// of steps, ... by their speed" ("" without times).
TextTable comparison_table(const Comparison& comparison);
std::string comparison_gain(const Comparison& comparison);
std::string comparison_text(const Comparison& comparison);
std::string comparison_markdown(const Comparison& comparison);

}  // namespace speedrun
