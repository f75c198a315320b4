#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "ops/cuda/gpu.h"

namespace speedrun::ops::cuda {

// Where documents lie in packed tensors: of cu_seqlens int32 [n + 1], how many tokens each document has,
// int32 [n], and for each of `strides`, the elements from token to token of a tensor, the element at which
// each begins, int64 [strides, n + 1].
struct AttentionLayout {
    at::Tensor lengths, offsets;
};
AttentionLayout attention_layout(const Gpu& gpu, const at::Tensor& cu_seqlens,
                                 std::span<const int64_t> strides);

}  // namespace speedrun::ops::cuda
