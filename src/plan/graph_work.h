#pragma once
// What the nodes of a graph compute, move and keep, added up.
#include <cstdint>

#include "config/schedule.h"
#include "model/graph/graph.h"

namespace speedrun {

// Of a row of that step, whose documents are max_seq_len tokens long.
PassShape pass_shape(const Config& config, const StepSettings& settings);

// Forward and backward of all nodes.
Work pass_work(const Graph& graph, const PassShape& shape);

// FLOP of forward and backward for one token: of matrix products (record 43: 114 M elements, 6 operations
// each, 685 M), of the head's among them, and of attention in that step.
struct TokenFlop {
    double gemm = 0, head = 0, attention = 0;
};
TokenFlop flop_per_token(const Graph& graph, const PassShape& shape);

// What operators take beside values and gradients: the most of each kind that a pass of that shape needs.
Scratch pass_scratch(const Graph& graph, const PassShape& shape, bool training);

}  // namespace speedrun
