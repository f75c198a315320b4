#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "config/coefficient.h"
#include "model/parameters.h"
#include "ops/scalar_program.h"

namespace speedrun {

// The scalar coefficients of a graph, evaluated together once a pass.
class ScalarTable {
  public:
    // Keeps addresses of elements of the parameters.
    ScalarTable(const std::vector<Coefficient>& scalars, const ParameterTable& parameters, Dtype activations,
                at::Device device);

    void evaluate();        // fills values(), zeroes grads()
    void backward() const;  // adds grads() to the gradients of the parameters

    at::Tensor values(int64_t first, int64_t count) const { return values_.narrow(0, first, count); }  // fp32
    at::Tensor grads(int64_t first, int64_t count) const { return grads_.narrow(0, first, count); }    // fp32

  private:
    std::optional<ops::ScalarEvaluator> evaluator_;  // none on the meta device
    at::Tensor values_, grads_;
};

}  // namespace speedrun
