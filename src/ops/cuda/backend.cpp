#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "ops/cuda/addresses.h"
#include "ops/cuda/gpu.h"
#include "util/error.h"
#include "util/module.h"

namespace speedrun::ops::cuda {
namespace {

constexpr const char* kModule = "libspeedrun_cuda.so";
constexpr const char* kNeeds = "CUDA's compiler (nvcc 13) and LibTorch's CUDA half";

// Whether some file has registered each kernel.
bool complete(const raw::Kernels& kernels) {
    std::array<const void*, sizeof(kernels) / sizeof(void*)> entries{};
    static_assert(sizeof(entries) == sizeof(kernels));
    std::memcpy(entries.data(), &kernels, sizeof(kernels));
    return std::ranges::count(entries, nullptr) == 0;
}

const raw::Kernels& load_kernels() {
    const auto kernels = reinterpret_cast<decltype(&speedrun_cuda_kernels)>(
        module_symbol(kModule, "speedrun_cuda_kernels", kNeeds));
    check(complete(*kernels()), std::string(kModule) + " lacks a kernel");
    return *kernels();
}

}  // namespace

bool fused(const at::Tensor& x) {
    return x.is_cuda() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

Gpu gpu_of(const at::Tensor& x) {
    static const raw::Kernels& kernels = load_kernels();
    return {kernels, c10::impl::VirtualGuardImpl(at::kCUDA).getStream(x.device()).native_handle()};
}

const raw::GraphTable& graph_table() {
    const auto find = reinterpret_cast<decltype(&speedrun_cuda_graphs)>(
        module_symbol(kModule, "speedrun_cuda_graphs", kNeeds));
    return *find();
}

std::shared_ptr<raw::Graphs> make_graphs() {
    return graph_table().make();
}

const raw::CudnnAttention& cudnn_attention() {
    const auto find = reinterpret_cast<decltype(&speedrun_cudnn_attention)>(
        module_symbol(kModule, "speedrun_cudnn_attention", kNeeds));
    const raw::CudnnAttention* const found = find();
    if (!found)
        throw UserError(std::string(kModule) +
                        " was built without cuDNN's attention: the build did not find cuDNN's headers or its "
                        "frontend (scripts/bootstrap installs the latter)");
    return *found;
}

bool have_driver() {
    return have_library("libcuda.so.1");
}

bool have_backend() {
    return have_module(kModule);
}

void load_backend() {
    load_kernels();
}

}  // namespace speedrun::ops::cuda
