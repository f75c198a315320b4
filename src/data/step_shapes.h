#pragma once
// A run's batches: their shapes step by step, and how ranks share their rows.
#include <vector>

#include "config/schedule.h"
#include "data/packing.h"

namespace speedrun {

StepShape step_shape(const DataConfig& data, const StepSettings& settings);

// Of every training step of a run.
std::vector<StepShape> step_shapes(const Config& config);

// Micro-batches of each rank in a step: rows / ranks. Throws UserError, with the nearest counts that would
// do, unless the rows divide over the ranks.
int64_t grad_accum_steps(const Config& config, int64_t world_size);

}  // namespace speedrun
