#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "config/model_config.h"
#include "ops/cuda/gpu.h"

namespace speedrun::ops {

inline constexpr size_t most_offset_channels = 2;

// Moves `channels` of every head one position later, across documents: y[t, h, c] = x[t - 1, h, c] for t >= 1
// and c among them, y = x elsewhere (record 49, CausalSelfAttention.forward). x, y [T, H, D] of one dtype
// (fp32 or bf16), heads contiguous within a token, any token stride; y must not overlap x. `channels`: at
// most most_offset_channels ranges of [0, D), none overlapping.
void key_offset(const at::Tensor& x, std::span<const HeadChannels> channels, const at::Tensor& y);

// dx is overwritten and must not overlap dy. The first position is read twice, the last one's `channels`
// never.
void key_offset_backward(const at::Tensor& dy, std::span<const HeadChannels> channels, const at::Tensor& dx);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void key_offset(const at::Tensor& x, std::span<const HeadChannels> channels, const at::Tensor& y);
void key_offset_backward(const at::Tensor& dy, std::span<const HeadChannels> channels, const at::Tensor& dx);
}  // namespace reference

namespace cuda {
void key_offset(const Gpu& gpu, const at::Tensor& x, std::span<const HeadChannels> channels,
                const at::Tensor& y);
void key_offset_backward(const Gpu& gpu, const at::Tensor& dy, std::span<const HeadChannels> channels,
                         const at::Tensor& dx);
}  // namespace cuda

}  // namespace speedrun::ops
