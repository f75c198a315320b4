#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// The second half of a net that makes coefficients for each token (MUDD, record 81; arXiv:2502.12170):
// values = (gelu(h) w^T + b) scale, gelu(x) = x Phi(x). h [T, K] of fp32 or bf16, contiguous; w [N, K] and b
// [N] of one of the two, contiguous; scale fp32 [1]; values fp32 [T, N], contiguous.
struct CoefNetWeights {
    at::Tensor w, b, scale;
};
void coef_net(const at::Tensor& h, const CoefNetWeights& weights, const at::Tensor& values);

// dh (as h) is written; w (as w) and b (as b), of one dtype, and scale (as scale; undefined: not wanted) of
// `grads` are added to: they are summed over tokens in fp32 and rounded once. dvalues as values.
void coef_net_backward(const at::Tensor& dvalues, const at::Tensor& h, const CoefNetWeights& weights,
                       const at::Tensor& dh, const CoefNetWeights& grads);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void coef_net(const at::Tensor& h, const CoefNetWeights& weights, const at::Tensor& values);
void coef_net_backward(const at::Tensor& dvalues, const at::Tensor& h, const CoefNetWeights& weights,
                       const at::Tensor& dh, const CoefNetWeights& grads);
}  // namespace reference

namespace cuda {
void coef_net(const Gpu& gpu, const at::Tensor& h, const CoefNetWeights& weights, const at::Tensor& values);
void coef_net_backward(const Gpu& gpu, const at::Tensor& dvalues, const at::Tensor& h,
                       const CoefNetWeights& weights, const at::Tensor& dh, const CoefNetWeights& grads);
}  // namespace cuda

}  // namespace speedrun::ops
