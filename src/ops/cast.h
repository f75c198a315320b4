#pragma once
#include <ATen/core/Tensor.h>

namespace speedrun::ops {

// dst = src, converted where the dtypes differ (fp32 <-> bf16, rounded to nearest even). Both contiguous, of
// one size.
void cast(const at::Tensor& src, const at::Tensor& dst);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void cast(const at::Tensor& src, const at::Tensor& dst);
}  // namespace reference

}  // namespace speedrun::ops
