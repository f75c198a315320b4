#pragma once
// A step as micro-batches: how many each rank has, what their passes are told, their gradients' sum.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/config.h"
#include "data/loader.h"
#include "model/gpt.h"
#include "optim/schedule.h"

namespace speedrun {

// Shapes of every training step of a run, for the loaders.
std::vector<StepShape> step_shapes(const Config& config);

// Micro-batches of each rank in every step of the largest stage: batch tokens / (ranks * micro-batch tokens).
// Throws UserError, with the nearest counts that would do, unless each stage's batch divides over the ranks.
int64_t grad_accum_steps(const Config& config, int64_t world_size);

// Windows and YaRN state of a step, as the model wants them.
AttentionSettings attention_settings(const StepSettings& settings);

// Adds the gradients of this rank's micro-batches; where objective.accumulation says so, divided. Returns
// each one's sum of losses (fp64, 0-dim, on the device). The last reports complete gradients to `grad_ready`.
std::vector<at::Tensor> accumulate_gradients(GPT& model, const Config& config,
                                             const std::vector<Batch>& batches, const StepSettings& settings,
                                             const GradReady& grad_ready = {});

}  // namespace speedrun
