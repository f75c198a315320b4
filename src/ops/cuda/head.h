#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"
#include "ops/head_loss.h"

namespace speedrun::ops::cuda {

// The largest |height| of a soft cap whose exponentials fp32 holds.
inline constexpr double most_softcap = 40;

// Of logits [T, V]: loss_per_token [T] and, where `gradient` [T, V] is defined, grad_scale * d(sum
// loss)/dlogits. It may be `logits` itself.
void softcap_loss(const Gpu& gpu, const at::Tensor& logits, const Targets& targets, const Softcap& softcap,
                  double grad_scale, const at::Tensor& loss_per_token, const at::Tensor& gradient);

// x [T, d] as 8-bit floats, x / scale in `dtype` (Float8_e4m3fn or Float8_e5m2): as it is, [T, d], and
// transposed, [d, T]. T and d are multiples of 16.
struct Quantized {
    at::Tensor whole, transposed;
};
Quantized quantize(const Gpu& gpu, const at::Tensor& x, double scale, at::ScalarType dtype);

// What quantize() makes, as e5m2, of the gradient that softcap_loss would leave in bf16.
Quantized softcap_loss_fp8(const Gpu& gpu, const at::Tensor& logits, const Targets& targets,
                           const Softcap& softcap, double grad_scale, const at::Tensor& loss_per_token,
                           double fp8_scale);

// Whether the GPU multiplies 8-bit floats.
bool has_fp8(const Gpu& gpu);

}  // namespace speedrun::ops::cuda
