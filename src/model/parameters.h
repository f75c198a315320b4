#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "config/config.h"
#include "model/fp8_weights.h"
#include "model/graph/graph.h"

namespace speedrun {

// A bank: one contiguous tensor per kind of parameter.
struct Parameter {
    ParamConfig config;
    at::Tensor value;  // config.shape; the master copy the optimizer updates
    at::Tensor grad;   // same shape and dtype, zero at the start of an accumulation
    at::Tensor
        used;  // what forward reads: `value` itself, or its copy in the activations' dtype, made by refresh()
};

// Every parameter of a model, in declaration order.
class ParameterTable {
  public:
    // Allocates values (uninitialised), zero gradients, and compute copies where activations differ from the
    // master dtype for parameters of two dimensions or more that matmuls read (embedding tables are looked
    // up, not multiplied: their `used` is `value`). Parameters that share a bucket (config/comm.h) follow
    // each other in memory: values, gradients and copies alike.
    ParameterTable(const Config& config, const Graph& graph, at::Device device);

    Parameter& operator[](const std::string& name);  // InternalError if there is none
    const Parameter& operator[](const std::string& name) const;
    std::vector<Parameter>& all() { return parameters_; }
    const std::vector<Parameter>& all() const { return parameters_; }

    // A part as forward reads it, and its gradient: views of the part's shape.
    at::Tensor used(const WeightRef& part) const;
    at::Tensor grad(const WeightRef& part) const;

    // Copies every master into its compute copy, and begins its 8-bit floats anew; where values come from
    // elsewhere than the optimizer, which writes the copies itself.
    void refresh();
    // Makes the 8-bit floats again, after the optimizer's step of this index has updated what forward reads.
    void refresh_fp8(int64_t step);
    // Makes the 8-bit floats again by the scales that a checkpoint has put into fp8().
    void restore_fp8();
    const Fp8Weights& fp8() const { return fp8_; }
    void zero_grad();       // all gradients to zero
    int64_t count() const;  // elements in all

  private:
    void allocate(const std::vector<std::string>& run, const Graph& graph, const NumericsConfig& numerics,
                  at::Device device);

    Fp8Weights::Used used_parts() const;

    std::vector<Parameter> parameters_;
    Fp8Weights fp8_;
};

// One tensor as the reference's state_dict has it.
struct StateDictEntry {
    std::string name;            // the reference's name
    int64_t index = -1;          // in the bank's dimension 0; -1: the whole bank
    int64_t layer = -1;          // the layer it belongs to; -1: none
    std::vector<int64_t> shape;  // its shape there
    bool transposed = false;     // that is the transpose of the bank's

    // The part of `bank` it names: a view in the bank's own shape, or its transpose.
    at::Tensor of(const at::Tensor& bank) const;
};

// The state_dict entries of one bank in order of its dimension 0: one per layer, one per {k}, or one in all.
std::vector<StateDictEntry> state_dict_entries(const ParamConfig& config);

}  // namespace speedrun
