#pragma once
#include <ATen/core/Tensor.h>

namespace speedrun::ops {

// One gate per token and head from the first n channels of the attention's input:
//   gate = sigmoid(x[:, :n] w^T),  out[t, h] = y[t, h] * gate[t, h].
// y, out [T, H, D] and x [T, d] of one dtype (fp32 or bf16), rows contiguous, any row stride; w [H, n], n <=
// d, contiguous, fp32 or bf16 (used as it is stored); gate fp32 [T, H], saved for backward. out may be y.
void head_gate(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w, const at::Tensor& out,
               const at::Tensor& gate);

// dy is overwritten and may be dout or y; dx [T, n] or wider: the gradient of x[:, :n] is added to its first
// n channels, the others are not touched; dw [H, n] contiguous, fp32 or bf16, is added to (summed over tokens
// in fp32, rounded once).
void head_gate_backward(const at::Tensor& dout, const at::Tensor& y, const at::Tensor& x, const at::Tensor& w,
                        const at::Tensor& gate, const at::Tensor& dy, const at::Tensor& dx,
                        const at::Tensor& dw);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void head_gate(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w, const at::Tensor& out,
               const at::Tensor& gate);
void head_gate_backward(const at::Tensor& dout, const at::Tensor& y, const at::Tensor& x, const at::Tensor& w,
                        const at::Tensor& gate, const at::Tensor& dy, const at::Tensor& dx,
                        const at::Tensor& dw);
}  // namespace reference

}  // namespace speedrun::ops
