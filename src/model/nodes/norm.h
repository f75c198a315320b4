#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// y = rms_norm(x) of a value that no mix makes: a mix norms its own.
class NormNode final : public Node {
  public:
    NormNode(GraphBuilder& build, const std::string& name, ValueId x);
    ValueId output() const { return y_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    ValueId x_;
    double eps_;
    int64_t d_;
    ValueId y_, rstd_;
};

}  // namespace speedrun
