#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// relu(x fc)^2 proj
class MlpNode final : public Node {
  public:
    MlpNode(GraphBuilder& build, const std::string& name, const MlpConfig& mlp, ValueId x);
    ValueId output() const { return out_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    at::Tensor fc_in_out(const at::Tensor& weight) const;
    at::Tensor proj_in_out(const at::Tensor& weight) const;

    MlpConfig config_;
    ValueId x_;
    int64_t d_, hidden_, grad_item_;
    ValueId pre_, post_, out_;
};

}  // namespace speedrun
