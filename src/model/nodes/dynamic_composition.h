#pragma once
#include "model/graph/builder.h"
#include "ops/dynamic_composition.h"

namespace speedrun {

// Adds to each head's output what one attention map, composed of all heads' maps, makes of its values: y_h +
// w2_h sum_g u_g P_g v_h, u being w1 normed over the heads (record 85; ops/dynamic_composition.h).
class DynamicCompositionNode final : public Node {
  public:
    // What attention reads, and its output.
    struct Heads {
        ValueId q, k, v, y;
    };
    // `w1`, `w2`: columns of values, one a head; their offsets are 0. `window`: keys a query sees at most.
    DynamicCompositionNode(GraphBuilder& build, const std::string& path, const Heads& heads, int64_t window,
                           const TokenFactor& w1, const TokenFactor& w2);
    ValueId output() const { return out_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    at::Tensor heads_of(const at::Tensor& x) const;
    ops::Composition input(Pass& pass) const;

    Heads values_;
    int64_t window_;
    TokenFactor w1_, w2_;
    int64_t heads_, head_dim_;
    ValueId out_;
};

}  // namespace speedrun
