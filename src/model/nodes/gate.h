#pragma once
#include "model/graph/builder.h"
#include "ops/gate.h"

namespace speedrun {

// Numbers a token, fp32: activation(u w^T), u the first channels of one or two values.
class GateNode final : public Node {
  public:
    struct Input {
        ValueId value;
        int64_t channels;
    };
    // `weight`: [outputs, channels of the inputs together]; its outputs are as many as it has rows.
    GateNode(GraphBuilder& build, const std::string& name, const WeightRef& weight, std::vector<Input> inputs,
             ops::Activation activation, const std::string& path);
    ValueId output() const { return values_; }
    int64_t outputs() const { return outputs_count_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    at::Tensor weight_view(const at::Tensor& weight) const;

    WeightRef weight_;
    std::vector<Input> from_;
    ops::Activation activation_;
    int64_t outputs_count_, channels_ = 0;
    ValueId values_;
};

}  // namespace speedrun
