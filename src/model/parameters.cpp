#include "model/parameters.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "util/error.h"

namespace speedrun {
namespace {

std::string substitute(std::string text, const std::string& key, int64_t value) {
    for (size_t at = 0; (at = text.find(key, at)) != std::string::npos;) {
        text.replace(at, key.size(), std::to_string(value));
    }
    return text;
}

int64_t product(std::span<const int64_t> shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

bool read_by_matmul(const ModelConfig& model, const ParamConfig& config) {
    const bool table = config.name == model.input.token || config.name == model.input.value_embeds;
    return config.shape.size() >= 2 && (!table || config.name == model.output.head);
}

}  // namespace

at::ScalarType scalar_type(Dtype dtype) {
    return dtype == Dtype::bf16 ? at::kBFloat16 : at::kFloat;
}

int64_t bank_index(const ParamConfig& param, int64_t layer) {
    const auto found = std::ranges::find(param.layers, layer);
    check(found != param.layers.end(), param.name + " has no entry for layer " + std::to_string(layer));
    return found - param.layers.begin();
}

ParameterTable::ParameterTable(const ModelConfig& model, const NumericsConfig& numerics, at::Device device) {
    const at::ScalarType activations = scalar_type(numerics.activations);
    for (const ParamConfig& config : model.params) {
        const bool all_fp32 = numerics.params == NumericsConfig::Params::fp32;
        const auto options = at::device(device).dtype(all_fp32 ? at::kFloat : scalar_type(config.dtype));
        Parameter parameter{config, at::empty(config.shape, options), at::zeros(config.shape, options), {}};
        const bool copy = read_by_matmul(model, config) && parameter.value.scalar_type() != activations;
        parameter.used = copy ? at::empty(config.shape, options.dtype(activations)) : parameter.value;
        parameters_.push_back(std::move(parameter));
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

void ParameterTable::refresh() {
    for (Parameter& parameter : parameters_) {
        if (!parameter.used.is_same(parameter.value)) parameter.used.copy_(parameter.value);
    }
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
    return index < 0 ? bank : bank.select(0, index);
}

std::vector<StateDictEntry> state_dict_entries(const ParamConfig& config) {
    const std::string& pattern = config.state_dict.empty() ? config.name : config.state_dict;
    const bool split = !config.layers.empty() || pattern.find("{k}") != std::string::npos;
    std::vector<int64_t> own(config.shape.begin() + (split ? 1 : 0), config.shape.end());
    const std::vector<int64_t>& shape = config.state_dict_shape.empty() ? own : config.state_dict_shape;
    check(product(shape) == product(own), config.name + ": state_dict_shape has another number of elements");
    if (!split) return {{pattern, -1, -1, shape}};
    check(config.layers.empty() || static_cast<int64_t>(config.layers.size()) == config.shape[0],
          config.name + ": dimension 0 is not the number of layers");
    std::vector<StateDictEntry> entries;
    for (int64_t k = 0; k < config.shape[0]; ++k) {
        const int64_t layer = config.layers.empty() ? -1 : config.layers[k];
        entries.push_back({substitute(substitute(pattern, "{i}", layer), "{k}", k), k, layer, shape});
    }
    return entries;
}

}  // namespace speedrun
