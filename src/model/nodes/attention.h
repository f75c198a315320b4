#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// Windowed causal attention inside documents.
class AttentionNode final : public Node {
  public:
    // q, k, v: [heads * head_dim] channels each
    AttentionNode(GraphBuilder& build, const std::string& name, ValueId q, ValueId k, ValueId v,
                  Window window);
    ValueId output() const { return y_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    at::Tensor heads_of(const at::Tensor& x) const;

    ValueId q_, k_, v_;
    Window window_;
    int64_t heads_, head_dim_;
    ValueId y_, lse_;
};

}  // namespace speedrun
