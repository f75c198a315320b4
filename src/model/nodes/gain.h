#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// y = x * gain, channel by channel: what makes a norm one with gains.
class GainNode final : public Node {
  public:
    GainNode(GraphBuilder& build, const std::string& name, ValueId x, const WeightRef& gain);
    ValueId output() const { return y_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    ValueId x_;
    WeightRef gain_;
    int64_t d_;
    ValueId y_;
};

}  // namespace speedrun
