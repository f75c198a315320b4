#pragma once
#include <optional>
#include <string>
#include <vector>

#include "record/race/race.h"
#include "record/report/svg.h"
#include "util/text_table.h"

namespace speedrun {

// What a rule came to with its best learning rate; over the seeds that have run with it.
struct Standing {
    std::string rule;
    double lr = 0;
    Summary loss;                     // final validation losses; infinite where a run diverged
    std::optional<Summary> steps_to;  // to the target; none unless every seed reached it
    std::optional<Summary> ms_to;     // the same on the clock
    double step_ms = kNotLogged;      // of training, the mean
    std::optional<RuleCosts> costs;
};

// Ordered by mean loss.
std::vector<Standing> standings(const Race& race, double target);

// Mean final loss of adamw, or of the best rule where adamw does not race or diverged; none where all did.
std::optional<double> default_target(const Race& race);

// Where a run's validation losses, joined by straight lines, first are at or below `target`: steps and ms.
struct Crossing {
    double step = 0, ms = 0;
};
std::optional<Crossing> first_crossing(const RaceRun& run, double target);

// One row a rule; and every learning rate with its final loss.
TextTable standings_table(const std::vector<Standing>& standings, double target);
TextTable sweep_table(const Race& race);

// Losses of every run with its rule's best rate: "loss_over_steps", "loss_over_time".
NamedFigures race_figures(const Race& race, double target);

std::string race_html(const Race& race, double target, const std::string& title, const std::string& made_by);

}  // namespace speedrun
