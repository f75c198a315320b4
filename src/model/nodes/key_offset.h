#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// Keys of which some channels come from the token before (record 49).
class KeyOffsetNode final : public Node {
  public:
    // k: [heads * head_dim] channels, after its rotary embedding. UserError at `path` for channels that a
    // head does not have.
    KeyOffsetNode(GraphBuilder& build, const std::string& path, ValueId k,
                  const std::vector<HeadChannels>& channels);
    ValueId output() const { return y_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    at::Tensor heads_of(const at::Tensor& x) const;

    ValueId k_;
    std::vector<HeadChannels> channels_;
    int64_t heads_, head_dim_;
    ValueId y_;
};

}  // namespace speedrun
