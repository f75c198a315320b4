#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// Smears every token's embedding one position forward, across documents: out_t = e_t + lambda * factor_t *
// e_{t-1} for t >= 1, out_0 = e_0 (record 43, class GPT). e, out [T, d] of one dtype (fp32 or bf16), rows
// contiguous, any row stride; lambda fp32, one element, on the same device; factor fp32 [T], or undefined: 1.
// out must not overlap e.
void smear(const at::Tensor& e, const at::Tensor& lambda, const at::Tensor& factor, const at::Tensor& out);

// de is overwritten and must not overlap dout or e. dfactor [T], undefined where factor is, and dlambda
// (fp32, one element; summed over tokens in fp32, rounded once) are added to.
void smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& lambda,
                    const at::Tensor& factor, const at::Tensor& de, const at::Tensor& dfactor,
                    const at::Tensor& dlambda);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void smear(const at::Tensor& e, const at::Tensor& lambda, const at::Tensor& factor, const at::Tensor& out);
void smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& lambda,
                    const at::Tensor& factor, const at::Tensor& de, const at::Tensor& dfactor,
                    const at::Tensor& dlambda);
}  // namespace reference

namespace cuda {
void smear(const Gpu& gpu, const at::Tensor& e, const at::Tensor& lambda, const at::Tensor& factor,
           const at::Tensor& out);
void smear_backward(const Gpu& gpu, const at::Tensor& dout, const at::Tensor& e, const at::Tensor& lambda,
                    const at::Tensor& factor, const at::Tensor& de, const at::Tensor& dfactor,
                    const at::Tensor& dlambda);
}  // namespace cuda

}  // namespace speedrun::ops
