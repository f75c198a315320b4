#include "ops/attention/cudnn_attention.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <bit>
#include <stdexcept>

#include "ops/attention/attention_check.h"
#include "ops/attention/attention_layout.h"
#include "util/error.h"

namespace speedrun::ops::cuda {
namespace {

namespace raw = speedrun::cuda;

constexpr int kOldestGpu = 90;  // Hopper: cuDNN's packed documents need it
// Below one tile of its kernels a shorter bound saves nothing.
constexpr int64_t kShortestBound = 128;

std::unique_ptr<raw::AttentionGraphs> make_graphs(at::Device device) {
    const std::string asked = "runtime.attention \"cudnn\" ";
    const std::string allowed = "; allowed there: \"flash\"";
    if (!device.is_cuda())
        throw UserError(asked + "needs an NVIDIA GPU, and this run is on " + device.str() + allowed);
    const int capability = gpu_of(at::empty({0}, device)).kernels.compute_capability();
    if (capability < kOldestGpu)
        throw UserError(asked + "needs a GPU of compute capability 9.0 (Hopper) or later, and " +
                        device.str() + " has " + std::to_string(capability / 10) + "." +
                        std::to_string(capability % 10) + allowed);
    try {
        return cudnn_attention().graphs();
    } catch (const std::runtime_error& error) {
        throw UserError(asked + "cannot be had: " + error.what() + allowed);
    }
}

}  // namespace

raw::AttentionShape attention_shape(std::span<const at::Tensor> tensors, const AttentionMask& mask) {
    const at::Tensor& q = tensors[raw::kQ];
    check(tensors.size() == raw::kOut + 1 || tensors.size() == raw::kAttentionTensors,
          "attention: cuDNN takes 4 tensors forward and 8 backward");
    const int64_t longest = mask.max_document > 0 ? mask.max_document : q.size(0);
    raw::AttentionShape shape{.tokens = q.size(0),
                              .heads = q.size(1),
                              .head_dim = q.size(2),
                              .documents = mask.cu_seqlens.size(0) - 1,
                              .backward = tensors.size() == raw::kAttentionTensors};
    check(CudnnAttention::takes_head_dim(shape.head_dim),
          "attention: cuDNN takes heads of 64 or 128 channels");
    shape.longest =
        static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max(longest, kShortestBound))));
    shape.window = std::min(mask.window, shape.longest - 1);
    for (size_t i = 0; i < tensors.size(); ++i) {
        const at::Tensor& x = tensors[i];
        check(x.sizes() == q.sizes() && x.stride(2) == 1 && (x.size(1) == 1 || x.stride(1) == x.size(2)),
              "attention: cuDNN takes tensors of one shape, heads and channels contiguous");
        shape.strides[i] = x.stride(0);
    }
    return shape;
}

CudnnAttention::CudnnAttention(at::Device device) : graphs_(make_graphs(device)) {}

void CudnnAttention::run(std::span<const at::Tensor> tensors, const AttentionMask& mask, double scale,
                         const at::Tensor& stats) const {
    const raw::AttentionShape shape = attention_shape(tensors, mask);
    const int64_t bytes = graphs_->workspace_bytes(shape);
    if (workspaces_.empty() || workspaces_.back().numel() < bytes)
        workspaces_.push_back(at::empty({bytes}, stats.options().dtype(at::kByte)));
    const Gpu gpu = gpu_of(stats);
    std::array<int64_t, raw::kAttentionOffsets> strides{};
    std::ranges::copy(shape.strides, strides.begin());
    strides.back() = shape.heads;
    const auto [lengths, offsets] = attention_layout(gpu, mask.cu_seqlens, strides);
    raw::AttentionCall call{.stats = stats.data_ptr<float>(),
                            .lengths = lengths.const_data_ptr<int32_t>(),
                            .offsets = offsets.const_data_ptr<int64_t>(),
                            .scale = static_cast<float>(scale),
                            .workspace = workspaces_.back().data_ptr()};
    for (size_t i = 0; i < tensors.size(); ++i) call.tensors[i] = tensors[i].data_ptr();
    graphs_->run(shape, call, gpu.stream);
}

// cuDNN's stats are [T, H]: the layout its backward has always been used with. lse is [H, T].
void CudnnAttention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttentionMask& mask, double scale, const at::Tensor& out,
                             const at::Tensor& lse) const {
    check_attention({q, k, v, out}, mask, lse);
    check(q.is_cuda() && q.scalar_type() == at::kBFloat16, "attention: cuDNN takes bf16 on a GPU");
    const at::Tensor stats = at::empty({lse.size(1), lse.size(0)}, lse.options());
    run(std::array{q, k, v, out}, mask, scale, stats);
    lse.copy_(stats.t());
}

AttentionGrads CudnnAttention::backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                        const AttentionMask& mask, double scale,
                                        const AttentionGrads& memory) const {
    const auto& [dq, dk, dv] = memory;
    check_attention({q, k, v, out, dout, dq, dk, dv}, mask, lse);
    const at::Tensor stats = lse.t().contiguous();
    run(std::array{q, k, v, out, dout, dq, dk, dv}, mask, scale, stats);
    return memory;
}

}  // namespace speedrun::ops::cuda
