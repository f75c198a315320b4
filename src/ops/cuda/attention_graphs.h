#pragma once
// cuDNN's attention as plain types, without a type of cuDNN's, CUDA's or torch's: the module
// libspeedrun_cuda.so has it where the build found cuDNN's frontend. All addresses are of the device but for
// what is said otherwise.
#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "ops/cuda/kernels.h"

namespace speedrun::cuda {

// The tensors of attention, each [tokens, heads, head_dim] in bf16, heads and channels contiguous.
enum AttentionTensor : uint8_t { kQ, kK, kV, kOut, kDout, kDq, kDk, kDv, kAttentionTensors };

// What a graph is built for: shapes of a batch that stay the same from batch to batch, so that graphs are
// few.
struct AttentionShape {
    int64_t tokens = 0, heads = 0, head_dim = 0;
    int64_t documents = 0;  // with those of no token
    int64_t longest = 0;    // no document is longer; tokens of a graph's padded sequence
    int64_t window = 0;     // tokens to the left; longest - 1: all of the document
    bool backward = false;
    std::array<int64_t, kAttentionTensors> strides{};  // of tokens, in elements; forward: 0 from kDout on
    auto operator<=>(const AttentionShape&) const = default;
};

// What one run of a graph reads and writes. Of every tensor, `lengths` [documents] tells the tokens of each
// document and `offsets` [kAttentionOffsets, documents + 1] the element at which it begins.
inline constexpr int64_t kAttentionOffsets = kAttentionTensors + 1;  // of the tensors, then of stats
struct AttentionCall {
    std::array<void*, kAttentionTensors> tensors{};
    float* stats = nullptr;  // [tokens, heads]: natural log of the sum of exp(scale * q.k)
    const int32_t* lengths = nullptr;
    const int64_t* offsets = nullptr;
    float scale = 1;
    void* workspace = nullptr;  // workspace_bytes of it
};

// Graphs by shape, on the GPU that was current when it was made. For one thread at a time.
class AttentionGraphs {
  public:
    virtual ~AttentionGraphs() = default;
    // Builds the graph at a shape's first use: seconds. std::runtime_error where cuDNN cannot.
    virtual int64_t workspace_bytes(const AttentionShape& shape) = 0;
    virtual void run(const AttentionShape& shape, const AttentionCall& call, Stream stream) = 0;
    // The GPU's properties in JSON, as plans_of takes them.
    virtual std::string device_properties() const = 0;
};

struct CudnnAttention {
    // Of the current GPU. std::runtime_error where cuDNN cannot be loaded.
    std::unique_ptr<AttentionGraphs> (*graphs)();
    // How many plans cuDNN offers for a graph on a GPU that need not be here, described by `properties` and
    // its compute capability, such as 90. std::runtime_error with cuDNN's reason where there is none.
    int64_t (*plans_of)(const AttentionShape& shape, const std::string& properties, int compute_capability);
};

}  // namespace speedrun::cuda

// Null where the module was built without cuDNN's frontend.
extern "C" const speedrun::cuda::CudnnAttention* speedrun_cudnn_attention();
