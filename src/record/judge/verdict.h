#pragma once
#include <string>

#include "record/judge/groups.h"
#include "record/judge/statistics.h"
#include "record/judge/track.h"

namespace speedrun {

inline constexpr double kSignificance = 0.01;

// The test that the rule rests on: t_test_less, with p NaN where the losses do not vary at all. Logs have
// four decimals; equal ones say that runs are repeats or that rounding hides how they vary, and not that
// chance is ruled out.
TTest track_test(std::span<const double> losses, double target);

// What rules 2 and 4 of the track say of a group (https://github.com/KellerJordan/modded-nanogpt#rules).
struct Verdict {
    Summary loss, time_ms;
    double target = kShortTarget;
    TTest test;
    bool below_target = false;  // the mean final loss is, with p below the significance
    bool record = false;        // that, and the runs are faster than a baseline's on the same hardware
    std::string reason;         // one sentence with the numbers it rests on

    std::string text() const;  // verdict_text
};

// "record", "below target, p < 0.01" or "not a record".
std::string verdict_text(bool below_target, bool record);

// Judges the group against `baseline`, runs of the record before it; without one no group is a record. Faster
// is a mean time below the baseline's, with the whole of Welch's 95 % interval of the difference.
Verdict judge(const RunGroup& group, double target = kShortTarget, const RunGroup* baseline = nullptr,
              double significance = kSignificance);

}  // namespace speedrun
