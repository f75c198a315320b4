#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "record/log/run_log.h"

namespace speedrun {

// One training step as the clock shows it: what passed between its line and the line before it. Step lines
// are written by the host, which runs ahead of the device; the device's rest comes in before a validation.
// That wait belongs to no single step and is left out, as is the first step after a clock that was set back.
struct StepTime {
    int64_t step = 0;
    double ms = 0;
};
std::vector<StepTime> step_times(const Run& run);

struct Stall {
    int64_t step = 0;
    double ms = 0;        // the step took this long
    double usual_ms = 0;  // the local median
    double lost_ms() const { return ms - usual_ms; }
};

inline constexpr double kStallFactor = 3;

// Steps slower than kStallFactor times the local median. The local median is the larger of the medians of up
// to 16 steps before and up to 16 after, so that a stage of slower steps is not a row of stalls.
struct Stalls {
    std::vector<Stall> hiccups;   // ordered by step
    std::vector<Stall> periodic;  // those that come every `period` steps: work, not accidents
    std::optional<int64_t> period;
    double lost_ms = 0;      // by the hiccups
    double periodic_ms = 0;  // extra time of the periodic ones
    double median_step_ms = kNotLogged;
    double train_time_ms = kNotLogged;    // of the last validation, else of the last step
    double time_without_ms = kNotLogged;  // what that would have been without the hiccups
};

// Needs Run::clock.
Stalls find_stalls(const Run& run);

}  // namespace speedrun
