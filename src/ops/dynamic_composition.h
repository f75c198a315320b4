#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// Added to the mean square of w1 over the heads.
inline constexpr double composition_eps = 1e-6;

// The longest window that the kernels for GPUs hold.
inline constexpr int64_t longest_composition = 512;

// What the heads' attention is composed of (DC; record 85, after arXiv:2405.08553).
struct Composition {
    at::Tensor q, k, v;     // [T, H, D] of one dtype (fp32 or bf16), rows [H, D] contiguous, any row stride
    at::Tensor w1, w2;      // fp32 [T, H], heads contiguous, any row stride
    at::Tensor cu_seqlens;  // as AttentionMask's
    int64_t window = 1;     // a query sees so many keys at most, itself included
    double scale = 1;       // of the scores q.k
};

struct CompositionGrads {
    at::Tensor dq, dk, dv;    // as q, k, v
    bool accumulate = false;  // dv is added to
    at::Tensor dw1, dw2;      // as w1 and w2; added to
};

// Dynamic composition of heads. P_h is the softmax of head h over the last `window` keys of a query's
// document, u = w1 / sqrt(mean over heads of w1^2 + eps). One attention map for all heads, A = sum_h u_h P_h,
// is applied to each head's values: out_h = y_h + w2_h A v_h. y, out: as q; out may be y. Sums are fp32,
// rounded once; they do not depend on the number of threads. Shapes that disagree, a window below 1:
// InternalError.
void dynamic_composition(const Composition& in, const at::Tensor& y, const at::Tensor& out);

// dq and dk are written, dv too or added to, dw1 and dw2 added to. y's gradient is dout itself. The softmax
// is computed again. No gradient may be dout.
void dynamic_composition_backward(const Composition& in, const at::Tensor& dout,
                                  const CompositionGrads& grads);

// The same on plain ATen calls with dense [H, T, T] scores (any device; fp64 too, of w1 and w2 as well), for
// tests and for devices without a fused path.
namespace reference {
void dynamic_composition(const Composition& in, const at::Tensor& y, const at::Tensor& out);
void dynamic_composition_backward(const Composition& in, const at::Tensor& dout,
                                  const CompositionGrads& grads);
}  // namespace reference

// Windows up to longest_composition; a longer one is an InternalError.
namespace cuda {
void dynamic_composition(const Gpu& gpu, const Composition& in, const at::Tensor& y, const at::Tensor& out);
void dynamic_composition_backward(const Gpu& gpu, const Composition& in, const at::Tensor& dout,
                                  const CompositionGrads& grads);
}  // namespace cuda

}  // namespace speedrun::ops
