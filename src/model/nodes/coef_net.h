#pragma once
#include "model/graph/builder.h"

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
    WeightRef w1_, w2_, b2_;
    double scale_;
    ValueId input_, hidden_, values_;
    int64_t channels_, hidden_count_, outputs_count_, grad_item_;
};

}  // namespace speedrun
