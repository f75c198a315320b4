#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// A value whose square is below this counts as that long.
inline constexpr double xsa_smallest_square = 1e-8;

// Exclusive self attention (record 82; arXiv:2603.09078): what a head's output has of its own value is taken
// out, y = x - tanh(alpha_h) (x . v) / max(v . v, 1e-8) v. x, v, y: [T, H, D] of one dtype (fp32 or bf16),
// rows [H, D] contiguous, any row stride; alpha [H], fp32 or bf16, or (record 85) [T, H] fp32, any token
// stride. y may be x.
void xsa(const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha, const at::Tensor& y);

// dx and dv (as x) are written, dalpha (as alpha) is added to: of alpha [H] it is summed over tokens in fp32
// and rounded once. dx may be dy.
void xsa_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha,
                  const at::Tensor& dx, const at::Tensor& dv, const at::Tensor& dalpha);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void xsa(const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha, const at::Tensor& y);
void xsa_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha,
                  const at::Tensor& dx, const at::Tensor& dv, const at::Tensor& dalpha);
}  // namespace reference

namespace cuda {
void xsa(const Gpu& gpu, const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha,
         const at::Tensor& y);
void xsa_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& v,
                  const at::Tensor& alpha, const at::Tensor& dx, const at::Tensor& dv,
                  const at::Tensor& dalpha);
}  // namespace cuda

}  // namespace speedrun::ops
