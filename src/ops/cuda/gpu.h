#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "ops/cuda/attention_graphs.h"
#include "ops/cuda/graph.h"
#include "ops/cuda/kernels.h"

namespace speedrun::ops::cuda {

// Where a kernel runs. The functions of ops/*.h that take one have the contracts of those without, but for
// this: tensors are fp32 or bf16, and a shape or dtype that does not fit is an InternalError. Scratch comes
// from ATen's caching allocator.
struct Gpu {
    const speedrun::cuda::Kernels& kernels;
    speedrun::cuda::Stream stream;
};

// Whether a kernel takes this tensor: a CUDA tensor of fp32 or bf16.
bool fused(const at::Tensor& x);

// The kernels of libspeedrun_cuda.so on the current stream of `x`'s device. UserError where the module is
// missing.
Gpu gpu_of(const at::Tensor& x);

// What captures work of a GPU. UserError where the module is missing.
const speedrun::cuda::GraphTable& graph_table();
std::shared_ptr<speedrun::cuda::Graphs> make_graphs();

// cuDNN's attention. UserError where the module is missing or was built without it.
const speedrun::cuda::CudnnAttention& cudnn_attention();

// Whether NVIDIA's driver is here, without which the module, a second's work to load, is of no use.
bool have_driver();
// Whether the build has made the module.
bool have_backend();
// Loads the module, and with it LibTorch's CUDA half. Before anything else asks ATen about GPUs. UserError as
// above.
void load_backend();

}  // namespace speedrun::ops::cuda
