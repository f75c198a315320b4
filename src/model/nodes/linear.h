#pragma once
#include "model/graph/builder.h"

namespace speedrun {

// y = x W^T + bias, W stored [out, in], or y = x W + bias, stored [in, out]. Its output may be cut into parts
// that others read one by one.
class LinearNode final : public Node {
  public:
    // `weight` has the shape [out, in] or [in, out] that `layout` says, `bias` [out] where it names a
    // parameter.
    LinearNode(GraphBuilder& build, const std::string& name, ValueId x, const WeightRef& weight,
               MatrixLayout layout, int64_t out, StepPart part, const std::string& path,
               const WeightRef& bias = {});
    ValueId output() const { return y_; }

    NodeCost cost(const PassShape& shape) const override;
    std::string shape() const override;
    void forward(Pass& pass) const override;
    void backward(Pass& pass) const override;

  private:
    at::Tensor in_out(const at::Tensor& weight) const;

    ValueId x_;
    WeightRef weight_, bias_;
    MatrixLayout layout_;
    int64_t in_, out_, grad_item_;
    ValueId y_;
};

}  // namespace speedrun
