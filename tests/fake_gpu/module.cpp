// What libspeedrun_cuda.so has beside the kernels, which are the emulated ones.
#include "ops/cuda/attention_graphs.h"
#include "ops/cuda/graph.h"
#include "support/function_graphs.h"

extern "C" const speedrun::cuda::GraphTable* speedrun_cuda_graphs() {
    using namespace speedrun;
    static const cuda::GraphTable table = {
        .make = []() -> std::unique_ptr<cuda::Graphs> { return std::make_unique<FunctionGraphs>(); },
        .device_allocations = [] { return int64_t{0}; },
        .forbid_waiting = [](bool) {},
    };
    return &table;
}

extern "C" const speedrun::cuda::CudnnAttention* speedrun_cudnn_attention() {
    return nullptr;
}
