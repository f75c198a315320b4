#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "config/config.h"
#include "model/parameters.h"

namespace speedrun {

// Every coefficient of the plan, evaluated together once a pass: c = scale * fn(scalar parameter element).
class CoefficientTable {
  public:
    // The terms' coefficients become entries [returned, returned + terms.size()).
    int64_t add(const std::vector<MixTerm>& terms);
    int64_t add(const Coefficient& coefficient);
    void finish(at::Device device);  // no additions after this

    void evaluate(const ParameterTable& parameters);  // fills values(), zeroes grads()
    void backward(
        ParameterTable& parameters) const;  // adds grads() to the gradients of the scalar parameters

    at::Tensor values(int64_t first, int64_t count) const { return values_.narrow(0, first, count); }  // fp32
    at::Tensor grads(int64_t first, int64_t count) const { return grads_.narrow(0, first, count); }    // fp32
    bool trainable(int64_t index) const { return !entries_[static_cast<size_t>(index)].param.empty(); }
    bool is_one(int64_t index) const { return entries_[static_cast<size_t>(index)] == Coefficient{}; }

  private:
    struct Group {  // the entries that read one scalar parameter
        std::string param;
        at::Tensor entries, elements;  // int64 [k]: index in the table, element of the parameter
        at::Tensor scale, is_sigmoid;  // fp32 [k], bool [k]
    };
    std::vector<Coefficient> entries_;
    std::vector<Group> groups_;
    at::Tensor values_, grads_;
};

}  // namespace speedrun
