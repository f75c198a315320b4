#pragma once
// A step as micro-batches: how many each rank has, what their passes are told, their gradients' sum.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/config.h"
#include "config/schedule.h"
#include "data/step_shapes.h"
#include "model/gpt.h"

namespace speedrun {

// Adds the gradients of this rank's micro-batches; where objective.accumulation says so, divided. Returns
// each one's sum of losses (fp64, 0-dim, on the device). The last reports complete gradients to `grad_ready`.
std::vector<at::Tensor> accumulate_gradients(GPT& model, const Config& config,
                                             const std::vector<Batch>& batches, const StepSettings& settings,
                                             const GradReady& grad_ready = {});

}  // namespace speedrun
