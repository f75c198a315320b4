#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// cos and sin of the angles, and what they turn.
struct RotaryTables {
    at::Tensor cos, sin;  // [T', D/2], one dtype (fp32 or bf16); row p is position p
    // Angle i turns the channels i and D/2 + i, or 2i and 2i + 1 (record 58).
    enum class Layout { halves, pairs } layout = Layout::halves;
    // Head h of token t stands at position 2t + h % 2, not t (record 58's paired heads); T' >= 2T, not T.
    bool paired = false;
};

// RMS norm of every head, then rotary embedding:
//   n = x * rstd, rstd = 1 / sqrt(mean(x^2) + eps) over D;  y1 = n1 cos + n2 sin,  y2 = -n1 sin + n2 cos.
// x, y [T, H, D] of one dtype (fp32 or bf16), D even and at most 1024, heads contiguous within a token, any
// token stride; rstd fp32 [T, H], saved for backward. y may be x.
void qk_norm_rotary(const at::Tensor& x, const RotaryTables& tables, double eps, const at::Tensor& y,
                    const at::Tensor& rstd);

// dx is overwritten; it may be dy or x.
void qk_norm_rotary_backward(const at::Tensor& dy, const at::Tensor& x, const RotaryTables& tables,
                             const at::Tensor& rstd, const at::Tensor& dx);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void qk_norm_rotary(const at::Tensor& x, const RotaryTables& tables, double eps, const at::Tensor& y,
                    const at::Tensor& rstd);
void qk_norm_rotary_backward(const at::Tensor& dy, const at::Tensor& x, const RotaryTables& tables,
                             const at::Tensor& rstd, const at::Tensor& dx);
}  // namespace reference

namespace cuda {
void qk_norm_rotary(const Gpu& gpu, const at::Tensor& x, const RotaryTables& tables, double eps,
                    const at::Tensor& y, const at::Tensor& rstd);
void qk_norm_rotary_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x,
                             const RotaryTables& tables, const at::Tensor& rstd, const at::Tensor& dx);
}  // namespace cuda

}  // namespace speedrun::ops
