#include "model/parameters.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "config/comm.h"
#include "ops/dtype.h"
#include "util/error.h"
#include "util/shape.h"

namespace speedrun {
namespace {

std::string substitute(std::string text, const std::string& key, int64_t value) {
    for (size_t at = 0; (at = text.find(key, at)) != std::string::npos;) {
        text.replace(at, key.size(), std::to_string(value));
    }
    return text;
}

// Tensors of these shapes one after the other in one piece of memory.
std::vector<at::Tensor> carve(const std::vector<std::vector<int64_t>>& shapes,
                              const at::TensorOptions& options) {
    int64_t total = 0;
    for (const auto& shape : shapes) total += element_count(shape);
    const at::Tensor memory = at::empty({total}, options);
    std::vector<at::Tensor> tensors;
    int64_t at = 0;
    for (const auto& shape : shapes) {
        tensors.push_back(memory.narrow(0, at, element_count(shape)).view(shape));
        at += element_count(shape);
    }
    return tensors;
}

at::Tensor view_of(const at::Tensor& bank, const WeightRef& part) {
    return bank.view(-1).narrow(0, part.begin, element_count(part.shape)).view(part.shape);
}

}  // namespace

ParameterTable::ParameterTable(const Config& config, const Graph& graph, at::Device device) {
    for (const ParamConfig& param : config.model.params) parameters_.push_back({param, {}, {}, {}});
    for (const auto& run : contiguous_runs(config)) allocate(run, graph, config.numerics, device);
    for (const ParamConfig& param : config.model.params)
        if (!(*this)[param.name].value.defined()) allocate({param.name}, graph, config.numerics, device);
    fp8_ = Fp8Weights(config.numerics, graph, device);
}

void ParameterTable::allocate(const std::vector<std::string>& run, const Graph& graph,
                              const NumericsConfig& numerics, at::Device device) {
    const ParamConfig& first = (*this)[run.front()].config;
    const bool all_fp32 = numerics.params == NumericsConfig::Params::fp32;
    const at::ScalarType dtype = all_fp32 ? at::kFloat : scalar_type(first.dtype);
    const at::ScalarType activations = scalar_type(numerics.activations);
    const bool copied = graph.multiplies(first.name) && dtype != activations;
    std::vector<std::vector<int64_t>> shapes;
    for (const std::string& name : run) {
        const ParamConfig& config = (*this)[name].config;
        check(config.dtype == first.dtype && graph.multiplies(config.name) == graph.multiplies(first.name),
              name + " cannot share memory with " + first.name);
        shapes.push_back(config.shape);
    }
    const auto values = carve(shapes, at::device(device).dtype(dtype));
    const auto grads = carve(shapes, at::device(device).dtype(dtype));
    const auto copies = copied ? carve(shapes, at::device(device).dtype(activations)) : values;
    for (size_t i = 0; i < run.size(); ++i) {
        Parameter& parameter = (*this)[run[i]];
        parameter.value = values[i];
        parameter.grad = grads[i].zero_();
        parameter.used = copied ? copies[i] : parameter.value;
    }
}

const Parameter& ParameterTable::operator[](const std::string& name) const {
    for (const Parameter& parameter : parameters_) {
        if (parameter.config.name == name) return parameter;
    }
    throw InternalError("no parameter named '" + name + "'");
}

Parameter& ParameterTable::operator[](const std::string& name) {
    return const_cast<Parameter&>(std::as_const(*this)[name]);
}

at::Tensor ParameterTable::used(const WeightRef& part) const {
    return view_of((*this)[part.param].used, part);
}

at::Tensor ParameterTable::grad(const WeightRef& part) const {
    return view_of((*this)[part.param].grad, part);
}

void ParameterTable::refresh() {
    for (Parameter& parameter : parameters_) {
        if (!parameter.used.is_same(parameter.value)) parameter.used.copy_(parameter.value);
    }
    fp8_.start(used_parts());
}

void ParameterTable::refresh_fp8(int64_t step) {
    fp8_.follow(used_parts(), step);
}

void ParameterTable::restore_fp8() {
    fp8_.restore(used_parts());
}

Fp8Weights::Used ParameterTable::used_parts() const {
    return [this](const WeightRef& part) { return used(part); };
}

void ParameterTable::zero_grad() {
    for (Parameter& parameter : parameters_) parameter.grad.zero_();
}

int64_t ParameterTable::count() const {
    int64_t count = 0;
    for (const Parameter& parameter : parameters_) count += parameter.value.numel();
    return count;
}

at::Tensor StateDictEntry::of(const at::Tensor& bank) const {
    const at::Tensor part = index < 0 ? bank : bank.select(0, index);
    return transposed ? part.t() : part;
}

std::vector<StateDictEntry> state_dict_entries(const ParamConfig& config) {
    const std::string& pattern = config.state_dict.empty() ? config.name : config.state_dict;
    const bool split = config.named_by_entry();
    std::vector<int64_t> own(config.shape.begin() + (split ? 1 : 0), config.shape.end());
    if (config.state_dict_transposed) std::swap(own.front(), own.back());
    const std::vector<int64_t>& shape = config.state_dict_shape.empty() ? own : config.state_dict_shape;
    check(element_count(shape) == element_count(own),
          config.name + ": state_dict_shape has another number of elements");
    if (!split) return {{pattern, -1, -1, shape, config.state_dict_transposed}};
    check(config.layers.empty() || static_cast<int64_t>(config.layers.size()) == config.shape[0],
          config.name + ": dimension 0 is not the number of layers");
    std::vector<StateDictEntry> entries;
    for (int64_t k = 0; k < config.shape[0]; ++k) {
        const int64_t layer = config.layers.empty() ? -1 : config.layers[k];
        entries.push_back({substitute(substitute(pattern, "{i}", layer), "{k}", k), k, layer, shape,
                           config.state_dict_transposed});
    }
    return entries;
}

}  // namespace speedrun
