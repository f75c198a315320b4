#pragma once
#include <ATen/core/Tensor.h>

namespace speedrun::ops {

// Smears every token's embedding one position forward, across documents:
//   gate_t = sigmoid(w . e_t[:n]),  out_t = e_t + lambda * gate_t * e_{t-1}  for t >= 1;  out_0 = e_0, gate_0
//   = 0.
// e, out [T, d] of one dtype (fp32 or bf16), rows contiguous, any row stride; w [n] or [1, n], n <= d,
// contiguous, fp32 or bf16 (used as it is stored); lambda fp32, one element, on the same device; gate fp32
// [T], saved for backward. out must not overlap e.
void smear(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda, const at::Tensor& out,
           const at::Tensor& gate);

// de is overwritten and must not overlap dout or e; dw (w's shape, contiguous, fp32 or bf16) and dlambda
// (fp32, one element) are added to (summed over tokens in fp32, rounded once).
void smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& w,
                    const at::Tensor& lambda, const at::Tensor& gate, const at::Tensor& de,
                    const at::Tensor& dw, const at::Tensor& dlambda);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void smear(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda, const at::Tensor& out,
           const at::Tensor& gate);
void smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& w,
                    const at::Tensor& lambda, const at::Tensor& gate, const at::Tensor& de,
                    const at::Tensor& dw, const at::Tensor& dlambda);
}  // namespace reference

}  // namespace speedrun::ops
