#pragma once
#include <string>
#include <vector>

#include "record/judge/groups.h"
#include "record/judge/verdict.h"
#include "record/log/stalls.h"
#include "record/report/svg.h"

namespace speedrun {

// A group of runs as the pictures show it.
struct FigureGroup {
    std::string name;  // short, for legends
    RunGroup group;    // its runs with clock and validations
    Verdict verdict;
    std::vector<Stalls> stalls;  // of each run
};

enum class Over { steps, time };

// Validation losses of every run, and training losses of one where they are logged, over steps or time. The
// axis begins where the curve has left its first fall, so that the end can be seen.
Svg loss_figure(const std::vector<FigureGroup>& groups, Over over);

// Above: mean and range of the middle 80 % of the steps' times. Below: a strip for each run with its
// stalls marked. Empty runs and runs without step lines are left out.
Svg step_time_figure(const std::vector<FigureGroup>& groups);
bool has_step_times(const std::vector<FigureGroup>& groups);

// Each run's final loss (time), their mean with its 95 % interval and, for the loss, the target and the bound
// that the one-sided test at 1 % puts to the mean: a record's lies left of the target.
Svg final_loss_figure(const std::vector<FigureGroup>& groups);
Svg final_time_figure(const std::vector<FigureGroup>& groups);
bool has_times(const std::vector<FigureGroup>& groups);

}  // namespace speedrun
