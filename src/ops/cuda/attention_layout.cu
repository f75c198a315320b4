#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

// A thread for each boundary of a document.
__global__ void attention_layout_kernel(const int32_t* cu_seqlens, int64_t documents,
                                        AttentionLayout layout) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i > documents) return;
    const int64_t begin = cu_seqlens[i];
    if (i < documents) layout.lengths[i] = cu_seqlens[i + 1] - cu_seqlens[i];
    for (int k = 0; k < layout.count; ++k)
        layout.offsets[k * (documents + 1) + i] = begin * layout.strides[k];
}

void attention_layout(const int32_t* cu_seqlens, int64_t documents, const AttentionLayout& layout,
                      Stream stream) {
    constexpr int kThreads = 128;
    launch(attention_layout_kernel, blocks_for(documents + 1, kThreads), kThreads, stream, cu_seqlens,
           documents, layout);
}

const Registration register_attention_layout(&Kernels::attention_layout, attention_layout);

}  // namespace
}  // namespace speedrun::cuda
