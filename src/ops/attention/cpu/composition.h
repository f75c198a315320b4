#pragma once
#include "ops/dynamic_composition.h"

namespace speedrun::ops::cpu {

// ops::dynamic_composition and its backward for fp32 and bf16 on the CPU. A block of kBlock queries at a time
// has its scores in memory, those of the keys it sees, computed in fp32.
void compose_heads(const Composition& in, const at::Tensor& y, const at::Tensor& out);
void compose_heads_backward(const Composition& in, const at::Tensor& dout, const CompositionGrads& grads);

}  // namespace speedrun::ops::cpu
