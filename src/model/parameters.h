#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "config/config.h"

namespace speedrun {

// A bank: one contiguous tensor per kind of parameter.
struct Parameter {
    ParamConfig config;
    at::Tensor value;  // config.shape; the master copy the optimizer updates
    at::Tensor grad;   // same shape and dtype, zero at the start of an accumulation
    at::Tensor used;   // what forward reads: `value` itself, or its copy in the activations' dtype, made by refresh()
};

// Every parameter of a model, in declaration order.
class ParameterTable {
  public:
    // Allocates values (uninitialised), zero gradients, and compute copies where activations differ from the master dtype
    // for parameters of two dimensions or more that matmuls read.
    ParameterTable(const ModelConfig& model, const NumericsConfig& numerics, at::Device device);

    Parameter& operator[](const std::string& name);  // InternalError if there is none
    const Parameter& operator[](const std::string& name) const;
    std::vector<Parameter>& all() { return parameters_; }
    const std::vector<Parameter>& all() const { return parameters_; }

    void refresh();  // copies every master into its compute copy; call after each optimizer step
    int64_t count() const;  // elements in all

  private:
    std::vector<Parameter> parameters_;
};

}  // namespace speedrun
