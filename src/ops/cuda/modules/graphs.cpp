// Graphs by ATen's CUDAGraph, which knows how its allocator takes part in a capture.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "ops/cuda/graph.h"

namespace speedrun::cuda {
namespace {

void require(cudaError_t error, const char* what) {
    if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

int64_t kernels_of(cudaGraph_t graph) {
    size_t count = 0;
    require(cudaGraphGetNodes(graph, nullptr, &count), "cudaGraphGetNodes");
    std::vector<cudaGraphNode_t> nodes(count);
    require(cudaGraphGetNodes(graph, nodes.data(), &count), "cudaGraphGetNodes");
    return std::ranges::count_if(nodes, [](cudaGraphNode_t node) {
        cudaGraphNodeType type{};
        require(cudaGraphNodeGetType(node, &type), "cudaGraphNodeGetType");
        return type == cudaGraphNodeTypeKernel;
    });
}

class CudaGraph final : public Graph {
  public:
    explicit CudaGraph(at::cuda::MempoolId_t pool) : pool_(pool) {}

    void capture(const std::function<void()>& work) override {
        // What other threads ask of CUDA meanwhile does not concern the capture.
        graph_.capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
        try {
            work();
        } catch (...) {
            abandon();
            throw;
        }
        graph_.capture_end();
        graph_.instantiate();
        kernels_ = kernels_of(graph_.raw_cuda_graph());
    }
    // Not by replay(): nothing captured here draws random numbers, for which it would launch kernels.
    void launch() override {
        require(cudaGraphLaunch(graph_.raw_cuda_graph_exec(), c10::cuda::getCurrentCUDAStream()),
                "cudaGraphLaunch");
    }
    int64_t kernels() const override { return kernels_; }

  private:
    // The error that ended the capture is the one to tell.
    void abandon() {
        try {
            graph_.capture_end();
        } catch (const std::exception&) {
        }
        (void)cudaGetLastError();
    }

    at::cuda::MempoolId_t pool_;
    at::cuda::CUDAGraph graph_{/*keep_graph=*/true};
    int64_t kernels_ = 0;
};

class CudaGraphs final : public Graphs {
  public:
    std::unique_ptr<Graph> make() override { return std::make_unique<CudaGraph>(pool_); }

  private:
    at::cuda::MempoolId_t pool_ = at::cuda::graph_pool_handle();
};

}  // namespace
}  // namespace speedrun::cuda

extern "C" const speedrun::cuda::GraphTable* speedrun_cuda_graphs() {
    using namespace speedrun::cuda;
    static const GraphTable table = {
        .make = []() -> std::unique_ptr<Graphs> { return std::make_unique<CudaGraphs>(); },
        .device_allocations =
            [] {
                return c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device())
                    .num_device_alloc;
            },
        .forbid_waiting =
            [](bool on) {
                c10::cuda::warning_state().set_sync_debug_mode(on ? c10::cuda::SyncDebugMode::L_ERROR
                                                                  : c10::cuda::SyncDebugMode::L_DISABLED);
            },
    };
    return &table;
}
