#include "ops/attention/attention_layout.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "ops/cuda/addresses.h"
#include "util/error.h"

namespace speedrun::ops::cuda {

AttentionLayout attention_layout(const Gpu& gpu, const at::Tensor& cu_seqlens,
                                 std::span<const int64_t> strides) {
    check(cu_seqlens.dim() == 1 && cu_seqlens.size(0) > 0 && cu_seqlens.scalar_type() == at::kInt &&
              cu_seqlens.is_contiguous(),
          "attention_layout: cu_seqlens are not int32 [n + 1]");
    check(strides.size() <= static_cast<size_t>(raw::kMostLayouts), "attention_layout: takes 9 tensors");
    const int64_t documents = cu_seqlens.size(0) - 1, count = std::ssize(strides);
    AttentionLayout result{at::empty({documents}, cu_seqlens.options()),
                           at::empty({count, documents + 1}, cu_seqlens.options().dtype(at::kLong))};
    raw::AttentionLayout layout{.count = static_cast<int>(count),
                                .lengths = result.lengths.data_ptr<int32_t>(),
                                .offsets = result.offsets.data_ptr<int64_t>()};
    std::ranges::copy(strides, layout.strides);
    gpu.kernels.attention_layout(cu_seqlens.const_data_ptr<int32_t>(), documents, layout, gpu.stream);
    return result;
}

}  // namespace speedrun::ops::cuda
