#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// relu(x fc + fc_bias)^2 proj + proj_bias. In training its products may be of 8-bit floats (numerics.mlp),
// forward; backward is in the activations' dtype from x, and pre = x fc + fc_bias and post = relu(pre)^2, or
// post alone.
class MlpNode final : public Node {
  public:
    MlpNode(GraphBuilder& build, const std::string& name, const MlpConfig& mlp, ValueId x);
    ValueId output() const { return out_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    Scratch fp8_scratch(const PassShape& shape) const;
    at::Tensor fc_in_out(const at::Tensor& weight) const;
    at::Tensor proj_in_out(const at::Tensor& weight) const;

    MlpConfig config_;
    ValueId x_;
    int64_t d_, hidden_, grad_item_;
    ValueId pre_ = -1, post_, out_;        // pre_ -1: post's root serves
    int64_t fp8_fc_ = -1, fp8_proj_ = -1;  // among Graph::fp8_weights(); -1: multiplied as activations are
};

}  // namespace speedrun
