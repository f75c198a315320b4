#pragma once
#include <ATen/core/Tensor.h>

namespace speedrun::ops {

// What norms with gains and products with biases have of torch's affine layers (track 3). Tensors of rows
// [T, C] and of channels [C], fp32, bf16 or fp64, on any device, by plain ATen calls. Sums over tokens are
// taken in fp32 (fp64 for fp64) and rounded once. InternalError for shapes that do not fit.

// y[t, c] = x[t, c] * gain[c]
void multiply_gain(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& y);
// dx = dy * gain, or added where `accumulate`; dgain[c] += sum_t dy[t, c] x[t, c]
void multiply_gain_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& gain,
                            const at::Tensor& dx, bool accumulate, const at::Tensor& dgain);

// y[t, c] += bias[c]
void add_bias(const at::Tensor& y, const at::Tensor& bias);
// dbias[c] += sum_t dy[t, c]
void add_bias_backward(const at::Tensor& dy, const at::Tensor& dbias);

}  // namespace speedrun::ops
