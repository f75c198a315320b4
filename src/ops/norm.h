#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// Root-mean-square norm without a weight (torch.nn.functional.rms_norm): y = x * rstd, rstd = 1 /
// sqrt(mean(x^2) + eps), the mean over a row. x, y [T, d] of one dtype (fp32 or bf16), rows contiguous, any
// row stride; rstd fp32 [T], saved for backward. y may be x.
void rms_norm(const at::Tensor& x, double eps, const at::Tensor& y, const at::Tensor& rstd);

// dx = rstd * (dy - x * rstd^2 * mean(dy * x)), or dx += that. dy, x, dx [T, d] of one dtype; dx may be dy or
// x.
void rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd,
                       const at::Tensor& dx, bool accumulate);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void rms_norm(const at::Tensor& x, double eps, const at::Tensor& y, const at::Tensor& rstd);
void rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd,
                       const at::Tensor& dx, bool accumulate);
}  // namespace reference

namespace cuda {
void rms_norm(const Gpu& gpu, const at::Tensor& x, double eps, const at::Tensor& y, const at::Tensor& rstd);
void rms_norm_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd,
                       const at::Tensor& dx, bool accumulate);
}  // namespace cuda

}  // namespace speedrun::ops
