#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "config/config.h"
#include "model/graph/graph.h"
#include "ops/fp8.h"

namespace speedrun {

// The weights of a graph that training multiplies in 8-bit floats (records 84 and 89), and the scales of them
// and of what they multiply. A scale is a number on the device that nobody waits for. Weights have the same
// on every rank, activations have each rank's own. Scales that are not delayed are what the weights say; the
// others, with numerics.mlp.down's numbers (train_gpt.py, quantize_mlp_fp8):
//   weights: the exact amax / 448 while the optimizer's step is below exact_weight_steps, afterwards the amax
//   of the quantisation before * (weight_headroom / 448);
//   activations: 1 in the first pass, then the amax of the pass before * (act_headroom / 448).
class Fp8Weights {
  public:
    // The weight as forward reads it in the activations' dtype.
    using Used = std::function<at::Tensor(const WeightRef&)>;

    Fp8Weights() = default;
    Fp8Weights(const NumericsConfig& numerics, const Graph& graph, at::Device device);
    bool empty() const { return entries_.empty(); }

    // Begins as before the first step, from weights that the optimizer has not made: initial or loaded ones.
    void start(const Used& used);
    // Quantises the weights again, after the optimizer's step of this index.
    void follow(const Used& used, int64_t step);
    // Quantises the weights of a checkpoint by its scales, which the caller has put into weight_scales() and
    // activation_scales() before.
    void restore(const Used& used);

    // The codes [out, in] of Graph::fp8_weights()[index], and the scale that multiplies them.
    ops::Fp8Matrix matrix(int64_t index) const;
    // y = x w^T in training, w being a weight whose scales are not delayed. x [T, in], y [T, out].
    void multiply(const at::Tensor& x, int64_t index, const at::Tensor& y) const;
    // For a weight whose scales are: post = max(pre, 0)^2, y = post w^T, and the scale of the next pass is
    // made. pre, post [T, in], which may be one tensor.
    void multiply_relu2(const at::Tensor& pre, const at::Tensor& post, int64_t index,
                        const at::Tensor& y) const;

    // fp32 [weights], those now in use.
    const at::Tensor& weight_scales() const { return scales_; }
    const at::Tensor& activation_scales() const { return activation_scales_; }

  private:
    struct Entry {
        Fp8Weight use;
        at::Tensor codes;   // [out, in]
        at::Tensor stored;  // the same as the weight is stored, or where they are made before they are turned
    };
    void quantize(const Used& used, int64_t index, ops::Fp8WeightScale which);

    NumericsConfig::Mlp::Down down_;
    std::vector<Entry> entries_;
    at::Tensor scales_, next_scales_, activation_scales_;  // fp32, one a weight
};

// Bytes of the copies and scales where 8-bit floats take `item` bytes each: 1 on a GPU that multiplies them,
// those of an activation elsewhere.
int64_t fp8_weight_bytes(const Graph& graph, int64_t item);

}  // namespace speedrun
