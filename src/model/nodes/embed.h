#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// out[t] = table[token t]
class EmbedNode final : public Node {
  public:
    // `table`: [rows, d_model]; `path`: where the config names it.
    EmbedNode(GraphBuilder& build, const std::string& name, const WeightRef& table, const std::string& path);
    ValueId output() const { return out_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    WeightRef table_;
    int64_t d_, table_item_, grad_item_;
    ValueId out_;
};

}  // namespace speedrun
