#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// out[t] = table[token t], or of another table while the two are tied (Pass::tied).
class EmbedNode final : public Node {
  public:
    // `table`: [vocab_size, d_model]; `path`: where the config names it.
    EmbedNode(GraphBuilder& build, const std::string& name, const WeightRef& table, const std::string& path);
    // `table` is looked up where `tied_to`, of the same shape, is not.
    EmbedNode(GraphBuilder& build, const std::string& name, const WeightRef& table, const WeightRef& tied_to,
              const std::string& path);
    ValueId output() const { return out_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    const WeightRef& table(const Pass& pass) const;

    WeightRef table_, tied_to_;
    int64_t d_, table_item_, grad_item_;
    ValueId out_;
};

}  // namespace speedrun
