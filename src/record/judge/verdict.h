#pragma once
#include <string>

#include "record/judge/groups.h"
#include "record/judge/statistics.h"

namespace speedrun {

inline constexpr double kShortTarget = 3.28, kMediumTarget = 2.92;  // nats per token
inline constexpr double kSignificance = 0.01;

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
