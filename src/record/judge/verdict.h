#pragma once
#include <string>

#include "record/judge/groups.h"
#include "record/judge/statistics.h"

namespace speedrun {

inline constexpr double kShortTarget = 3.28, kMediumTarget = 2.92;  // nats per token
inline constexpr double kSignificance = 0.01;

// The test that the rule rests on: t_test_less, with p NaN where the losses do not vary at all. Logs have
// four decimals; equal ones say that runs are repeats or that rounding hides how they vary, and not that
// chance is ruled out.
TTest track_test(std::span<const double> losses, double target);

// What the track's rule says of a group: a record's mean final loss is below the target with p <
// kSignificance.
struct Verdict {
    Summary loss, time_ms;
    double target = kShortTarget;
    TTest test;
    bool record = false;
    std::string reason;  // one sentence with the numbers it rests on
};

Verdict judge(const RunGroup& group, double target = kShortTarget);

}  // namespace speedrun
