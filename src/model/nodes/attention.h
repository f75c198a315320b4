#pragma once
#include "model/graph/builder.h"
#include "model/workspace.h"
#include "ops/attention/attention.h"

namespace speedrun {

// Windowed causal attention inside documents. Of paired heads the same memory is read as [2T, H / 2, D]:
// heads j and j + H / 2 of token t are one head at the positions 2t and 2t + 1, and the window counts those
// positions.
class AttentionNode final : public Node {
  public:
    // q, k, v: [heads * head_dim] channels each
    AttentionNode(GraphBuilder& build, const std::string& name, ValueId q, ValueId k, ValueId v,
                  Window window, AttentionConfig::Kind kind);
    ValueId output() const { return y_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    at::Tensor heads_of(const at::Tensor& x) const;
    at::Tensor lse_of(const at::Tensor& lse, int64_t tokens) const;
    const ops::AttentionMask& mask_of(const Pass& pass) const;
    at::Tensor memory_for(Workspace& ws, const Workspace::Target& target) const;
    void hand_over(Workspace& ws, ValueId id, const Workspace::Target& target, const at::Tensor& memory,
                   const at::Tensor& found) const;

    ValueId q_, k_, v_;
    Window window_;
    int64_t pair_;  // 2 of paired heads, else 1
    int64_t heads_, head_dim_;
    ValueId y_, lse_;
};

}  // namespace speedrun
