#pragma once
// Rows of `bench ops`: what model/ and optim/ call in a step, on tensors of their own.
#include <cstdint>
#include <span>
#include <vector>

#include "app/bench/ops/shapes.h"
#include "app/bench/ops/table.h"

namespace speedrun {

// Passes over activations: embedding, norms, mixes, rotary, gates, smear, relu^2.
std::vector<Op> element_ops(const PassShapes& pass);

// Products: every linear layer's three, attention for each window of the schedule, the head.
std::vector<Op> product_ops(const PassShapes& pass);

// The update of every parameter by its rule. Where that is a pipeline of momentum, orthogonalisation and
// update and nothing else, its parts as well.
std::vector<Op> optimizer_ops(const Config& config, const StepSettings& settings, at::Device device);

// Pairs of a query and a key that it sees, of one head, in documents that begin at cu_seqlens.
int64_t visible_pairs(std::span<const int32_t> cu_seqlens, int64_t window);

}  // namespace speedrun
