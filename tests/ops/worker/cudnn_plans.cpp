// Asks cuDNN for the plans of attention's graphs on a GPU that is described, not here. cuDNN wants NVIDIA's
// driver to be loadable for that, so where there is none the toolkit's stub of it is loaded first: in a
// process of its own, as a test program with the stub would believe in a GPU.
//   ops_cudnn_plans {CAPABILITY forward|backward TOKENS HEADS HEAD_DIM DOCUMENTS LONGEST WINDOW}...
// One line a graph: the number of plans, or "refused" and cuDNN's reason. Exit code 4 where this machine
// cannot ask, with the reason on stderr.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "ops/cuda/gpu.h"

namespace {

using speedrun::cuda::AttentionShape;

// An H100 SXM, as CUDA's programming guide and NVIDIA's data sheet describe it.
const std::string kH100 =
    R"({"cudaDeviceId": 0, "deviceVer": 900, "driverVer": 13000, "maxGridSize": [2147483647, 65535, 65535],)"
    R"( "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536, "multiProcessorCount": 132, "warpSize": 32,)"
    R"( "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,)"
    R"( "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, "maxCtasPerSM": 32,)"
    R"( "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "pciDeviceId": 0, "isTccDriver": 0,)"
    R"( "supportCoopLaunch": 1, "smClockRateKHz": 1980000, "memClockRateKHz": 2619000, "l2CacheSize": 52428800,)"
    R"( "totalGlobalMem": 85024112640, "deviceName": "NVIDIA H100 80GB HBM3"})";

constexpr int kCannotAsk = 4;
constexpr const char* kStub = "/usr/local/cuda/lib64/stubs/libcuda.so";

int cannot_ask(const std::string& why) {
    std::fprintf(stderr, "%s\n", why.c_str());
    return kCannotAsk;
}

std::string plans(const speedrun::cuda::CudnnAttention& cudnn, const AttentionShape& shape, int capability) {
    try {
        return std::to_string(cudnn.plans_of(shape, kH100, capability));
    } catch (const std::runtime_error& error) {
        std::string reason = error.what();
        std::ranges::replace(reason, '\n', ' ');
        return "refused: " + reason;
    }
}

AttentionShape shape_of(char** words) {
    const auto number = [&](int i) { return std::stoll(words[i]); };
    AttentionShape shape{.tokens = number(2),
                         .heads = number(3),
                         .head_dim = number(4),
                         .documents = number(5),
                         .longest = number(6),
                         .window = number(7),
                         .backward = std::string(words[1]) == "backward"};
    for (size_t i = 0; i < shape.strides.size(); ++i)
        if (shape.backward || i <= speedrun::cuda::kOut) shape.strides[i] = shape.heads * shape.head_dim;
    return shape;
}

constexpr int kWords = 8;

}  // namespace

int main(int argc, char** argv) {
    if (argc < 1 + kWords || (argc - 1) % kWords != 0) return 2;
    if (!speedrun::ops::cuda::have_driver() && !dlopen(kStub, RTLD_NOW | RTLD_GLOBAL))
        return cannot_ask(std::string("neither NVIDIA's driver nor the toolkit's stub: ") + dlerror());
    try {
        const auto& cudnn = speedrun::ops::cuda::cudnn_attention();
        for (char** words = argv + 1; words < argv + argc; words += kWords)
            std::printf("%s\n", plans(cudnn, shape_of(words), std::stoi(words[0])).c_str());
    } catch (const std::exception& error) {
        return cannot_ask(error.what());
    }
    return 0;
}
