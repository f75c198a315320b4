#pragma once
#include <initializer_list>

#include "ops/attention/attention.h"

namespace speedrun::ops {

// q, k, v, out and in a backward dout, dq, dk, dv: of one shape, dtype and device, heads and channels
// contiguous; mask and lse as Attention wants them. InternalError otherwise.
void check_attention(std::initializer_list<at::Tensor> tensors, const AttentionMask& mask,
                     const at::Tensor& lse);

}  // namespace speedrun::ops
