#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// out_t = e_t + coefficient_t e_(t-1), across documents
class SmearNode final : public Node {
  public:
    SmearNode(GraphBuilder& build, const std::string& name, ValueId e, const TermCoefficient& coefficient);
    ValueId output() const { return out_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    ValueId e_;
    TokenFactor factor_;
    int64_t lambda_, d_;
    ValueId out_;
};

}  // namespace speedrun
