#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/attention/attention.h"
#include "ops/cuda/attention_graphs.h"

namespace speedrun::ops::cuda {

// The shape of the graph that computes attention of tensors q, k, v, out (forward) or q, k, v, out, dout, dq,
// dk, dv (backward), each [T, H, D]. Documents' lengths are rounded up to a power of two and windows that
// hold a whole document are one, so that batches of one stage have few graphs. InternalError where the
// tensors are not as attention needs them: heads and channels contiguous, D 64 or 128.
speedrun::cuda::AttentionShape attention_shape(std::span<const at::Tensor> tensors,
                                               const AttentionMask& mask);

// Attention by cuDNN, on one GPU (Hopper or later) and in
// bf16. dq is summed by atomic additions, so its last bits differ from run to run. Graphs are
// built where a shape is first seen, which takes seconds; a workspace is kept for each size that was the
// largest so far. No synchronisation with the host. For one thread at a time. Documents of no token, as a
// batch is padded with, have neither queries nor keys there; of keys alone cuDNN before 9.25 would make NaN.
class CudnnAttention final : public Attention {
  public:
    // The number of channels of a head it is made for.
    static bool takes_head_dim(int64_t head_dim) { return head_dim == 64 || head_dim == 128; }

    // UserError where `device` is no such GPU, or the build or the machine has no cuDNN.
    explicit CudnnAttention(at::Device device);

    void forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionMask& mask,
                 double scale, const at::Tensor& out, const at::Tensor& lse) const override;
    AttentionGrads backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                            const AttentionMask& mask, double scale,
                            const AttentionGrads& memory) const override;

    // What cuDNN knows of the GPU, in JSON: with it a machine without one can ask which graphs it takes.
    std::string device_properties() const { return graphs_->device_properties(); }

  private:
    void run(std::span<const at::Tensor> tensors, const AttentionMask& mask, double scale,
             const at::Tensor& stats) const;

    std::unique_ptr<speedrun::cuda::AttentionGraphs> graphs_;
    // All that it has had: a captured launch goes on with the one of its capture.
    mutable std::vector<at::Tensor> workspaces_;
};

}  // namespace speedrun::ops::cuda
