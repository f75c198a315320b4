#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// RMS norm of every head of queries or keys, then rotary embedding.
class RotaryNode final : public Node {
  public:
    // x: [heads * head_dim] channels
    RotaryNode(GraphBuilder& build, const std::string& name, ValueId x, AttentionConfig::Kind kind);
    ValueId output() const { return y_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    at::Tensor heads_of(const at::Tensor& x) const;

    ValueId x_;
    bool paired_;
    int64_t heads_, head_dim_, table_item_;
    double eps_;
    ValueId y_, rstd_;
};

}  // namespace speedrun
