#pragma once
// Rows of `bench ops` for the optimizer: what optim/ calls in a step, on tensors of their own.
#include <c10/core/Device.h>

#include <vector>

#include "app/bench/ops/table.h"
#include "config/schedule.h"
#include "model/graph/graph.h"

namespace speedrun {

// The update of every parameter by its rule. Where that is a pipeline of momentum, orthogonalisation and
// update and nothing else, its parts as well.
std::vector<Op> optimizer_ops(const Config& config, const Graph& graph, const StepSettings& settings,
                              at::Device device);

}  // namespace speedrun
