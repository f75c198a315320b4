#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// out[t, :dims] = table[row_t], times signs[sign row_t] where there are signs; the other channels are zero.
// Rows: config/model_config.h's Bigram.
class BigramNode final : public Node {
  public:
    BigramNode(GraphBuilder& build, const Bigram& bigram, const std::string& path);
    ValueId output() const { return out_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    bool has_signs() const { return !signs_.param.empty(); }

    WeightRef table_, signs_;
    int64_t dims_, d_, table_item_ = 0, signs_item_ = 0, grad_item_;
    ValueId out_;
};

}  // namespace speedrun
