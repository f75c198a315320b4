#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "record/judge/groups.h"
#include "record/judge/statistics.h"
#include "record/judge/track.h"

namespace speedrun {

// The rules of track 3, which counts steps (records/track_3_optimization/README.md, "Rules" and "Pairwise
// statistical significance"). Losses are taken to vary by sigma = 0.0013 from run to run, so that a mean of n
// runs that lies 0.004 / sqrt(n), 3.09 sigma, below the target is there by chance with p < 0.001.
inline constexpr double kStepMargin = 0.004;
// Loss that a step more or less is worth near the end of a run.
inline constexpr double kLossPerStep = 0.0045 / 100;

// Which of a validation's losses is judged.
enum class Readout { weights, ema };  // val_loss, val_ema_loss

// All runs of a group at one step.
struct StepResult {
    int64_t step = 0;
    Summary loss;
    double margin = 0;    // (target - mean) * sqrt(n)
    bool passes = false;  // the margin is kStepMargin or more
};

struct StepVerdict {
    double target = kShortTarget;
    std::vector<StepResult> steps;     // those after the start at which every run was validated
    std::optional<StepResult> result;  // at the step asked for, else at the earliest that passes
    std::string reason;                // one sentence with the numbers it rests on

    bool valid() const { return result && result->passes; }
};

// Judges runs that were collected with CollectOptions::counts_steps, all at one step: `at_step`, else the
// earliest that passes.
StepVerdict judge_steps(const RunGroup& group, double target = kShortTarget,
                        std::optional<int64_t> at_step = std::nullopt, Readout readout = Readout::weights);

// Whether a result beats another: the difference of their mean losses, and what the difference of their steps
// is worth, together.
struct StepComparison {
    StepResult baseline, changed;
    double by_loss = 0;   // mean of the baseline less that of the other
    double by_steps = 0;  // loss that the steps saved are worth: kLossPerStep each
    double margin = 0;    // (by_loss + by_steps) / sqrt(1 / n1 + 1 / n2)
    bool better = false;  // the margin is kStepMargin or more
};
StepComparison compare_steps(const StepResult& baseline, const StepResult& changed);

}  // namespace speedrun
