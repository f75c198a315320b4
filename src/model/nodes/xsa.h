#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// Takes out of each head's output what it has of its own value: y - tanh(alpha) (y . v) / |v|^2 v.
class XsaNode final : public Node {
  public:
    // `alpha`: elements of a parameter, or outputs of a net; one for each head.
    XsaNode(GraphBuilder& build, const std::string& path, ValueId y, ValueId v, const Coefficient& alpha);
    ValueId output() const { return out_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    at::Tensor heads_of(const at::Tensor& x) const;
    at::Tensor alpha(const Pass& pass) const;
    at::Tensor dalpha(Pass& pass) const;

    ValueId y_, v_;
    WeightRef alpha_;  // param "": each token has its own
    TokenFactor alpha_of_token_;
    int64_t heads_, head_dim_;
    ValueId out_;
};

}  // namespace speedrun
