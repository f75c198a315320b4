#pragma once
#include "model/graph/builder.h"
#include "ops/coef_net.h"

namespace speedrun {

// Coefficients for each token, fp32: (gelu(u w1^T) w2^T + b2) scale.
class CoefNetNode final : public Node {
  public:
    CoefNetNode(GraphBuilder& build, const CoefNet& net, ValueId input, const std::string& path);
    ValueId output() const { return values_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    ops::CoefNetWeights weights(const Pass& pass) const;
    ops::CoefNetWeights grads(const Pass& pass) const;

    WeightRef w1_, w2_, b2_;
    int64_t scale_;  // among the graph's scalars
    bool trains_scale_;
    ValueId input_, hidden_, values_;
    int64_t channels_, hidden_count_, outputs_count_, grad_item_;
};

}  // namespace speedrun
