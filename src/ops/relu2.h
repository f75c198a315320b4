#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// y = max(x, 0)^2 (So et al. 2021, arXiv:2109.08668). x, y [T, d] of one dtype (fp32 or bf16), rows
// contiguous, any row stride. y may be x.
void relu2(const at::Tensor& x, const at::Tensor& y);

// dx = 2 max(x, 0) dy. dx may be dy or x.
void relu2_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx);

// The same from y = relu2(x) alone: dx = 2 sqrt(y) dy (record 87). dx may be dy or y. Where y was rounded to
// bf16, its root differs from max(x, 0) by up to half a digit of bf16; in fp32 it is max(x, 0) again but
// where the square is too small or too large for fp32.
void relu2_backward_of_output(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& dx);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void relu2(const at::Tensor& x, const at::Tensor& y);
void relu2_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx);
void relu2_backward_of_output(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& dx);
}  // namespace reference

namespace cuda {
void relu2(const Gpu& gpu, const at::Tensor& x, const at::Tensor& y);
void relu2_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx);
void relu2_backward_of_output(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& y,
                              const at::Tensor& dx);
}  // namespace cuda

}  // namespace speedrun::ops
