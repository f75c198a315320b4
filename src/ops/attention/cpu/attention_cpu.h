#pragma once
#include <ATen/core/Tensor.h>

#include "ops/attention/attention.h"

namespace speedrun::ops::cpu {

// ops::attention_forward and attention_backward for fp32 and bf16 on the CPU: flash attention over tiles of
// kBlock x kBlock, visiting only the blocks that window and document allow. The results do not depend on the
// number of threads.
void attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const AttentionMask& mask, double scale, const at::Tensor& out, const at::Tensor& lse);
void attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const at::Tensor& out, const at::Tensor& lse, const AttentionMask& mask, double scale,
                        const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv);

}  // namespace speedrun::ops::cpu
