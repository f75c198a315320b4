#pragma once
#include <string>
#include <vector>

#include "model/graph/builder.h"

namespace speedrun {

// y = sum_j c_j s_j and, once somebody asks for it, rms_norm(y) in the same pass.
class MixNode final : public Node {
  public:
    struct Term {
        TermCoefficient coefficient;
        ValueId source;
    };
    static constexpr size_t most_terms = 8;

    MixNode(GraphBuilder& build, const std::string& name, const std::vector<Term>& terms);
    ValueId output() const { return y_; }
    // rms_norm(y)
    ValueId normed(GraphBuilder& build);

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    // What the graph knows of a source.
    struct Source {
        ValueId value;
        TokenFactor factor;
        bool trainable, is_one;
    };
    at::Tensor factor_of(const at::Tensor& all, const TokenFactor& factor) const;

    std::vector<Source> from_;
    int64_t first_scalar_, d_;
    double eps_;
    ValueId y_, normed_ = -1, rstd_ = -1;
};

}  // namespace speedrun
