#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// The second half of a net that makes coefficients for each token (MUDD, record 81; arXiv:2502.12170):
// values = (gelu(h) w^T + b) scale, gelu(x) = x Phi(x). h [T, K] of fp32 or bf16, contiguous; w [N, K] and b
// [N] of one of the two, contiguous; values fp32 [T, N], contiguous.
void coef_net(const at::Tensor& h, const at::Tensor& w, const at::Tensor& b, double scale,
              const at::Tensor& values);

// dh (as h) is written; dw (as w) and db (as b), of one dtype, are added to: they are summed over tokens in
// fp32 and rounded once. dvalues as values.
void coef_net_backward(const at::Tensor& dvalues, const at::Tensor& h, const at::Tensor& w, double scale,
                       const at::Tensor& dh, const at::Tensor& dw, const at::Tensor& db);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void coef_net(const at::Tensor& h, const at::Tensor& w, const at::Tensor& b, double scale,
              const at::Tensor& values);
void coef_net_backward(const at::Tensor& dvalues, const at::Tensor& h, const at::Tensor& w, double scale,
                       const at::Tensor& dh, const at::Tensor& dw, const at::Tensor& db);
}  // namespace reference

namespace cuda {
void coef_net(const Gpu& gpu, const at::Tensor& h, const at::Tensor& w, const at::Tensor& b, double scale,
              const at::Tensor& values);
void coef_net_backward(const Gpu& gpu, const at::Tensor& dvalues, const at::Tensor& h, const at::Tensor& w,
                       double scale, const at::Tensor& dh, const at::Tensor& dw, const at::Tensor& db);
}  // namespace cuda

}  // namespace speedrun::ops
