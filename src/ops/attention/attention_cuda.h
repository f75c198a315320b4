#pragma once
#include <ATen/core/Tensor.h>

#include "ops/attention/attention.h"

namespace speedrun::ops::cuda {

// Attention::forward and backward for bf16 and fp16 CUDA tensors: ATen's flash attention over
// sequences of varying length. No synchronisation with the host. D: at most 256, a multiple of 8. `atomic`:
// dq may be summed by atomic additions, whose last bits differ from run to run.
void attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const AttentionMask& mask, double scale, const at::Tensor& out, const at::Tensor& lse);
AttentionGrads attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                  const AttentionMask& mask, double scale, bool atomic);

}  // namespace speedrun::ops::cuda
