#pragma once
#include <optional>

#include "model/graph/builder.h"
#include "ops/head_loss.h"

namespace speedrun {

// Head, soft cap and cross-entropy. In training its forward already leaves the gradients of the head and of
// its input: logits are never kept.
class HeadNode final : public Node {
  public:
    HeadNode(GraphBuilder& build, ValueId x);

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass&) const override {}

  private:
    ops::HeadWeight used(const Pass& pass) const;
    ops::HeadWeight grad(Pass& pass) const;
    at::Tensor logits(Pass& pass) const;
    int64_t gpu_bytes(int64_t rows, int64_t item) const;

    ValueId x_;
    WeightRef weight_, bias_;  // bias_ naming no parameter: none
    ops::Softcap softcap_;
    std::optional<ops::Fp8Scales> fp8_;
    int64_t vocab_, d_, grad_item_;
};

}  // namespace speedrun
