#include "model/coefficients.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace speedrun {

int64_t CoefficientTable::add(const std::vector<MixTerm>& terms) {
    const auto first = static_cast<int64_t>(entries_.size());
    for (const MixTerm& term : terms) entries_.push_back(term.coefficient);
    return first;
}

int64_t CoefficientTable::add(const Coefficient& coefficient) {
    entries_.push_back(coefficient);
    return static_cast<int64_t>(entries_.size()) - 1;
}

void CoefficientTable::finish(at::Device device) {
    std::vector<float> constants;
    std::vector<std::string> params;
    for (const Coefficient& c : entries_) {
        constants.push_back(static_cast<float>(c.scale));
        if (!c.param.empty() && std::ranges::find(params, c.param) == params.end()) params.push_back(c.param);
    }
    const auto on_device = [&](const auto& host) { return at::tensor(host).to(device); };
    values_ = on_device(constants);
    grads_ = at::zeros_like(values_);
    for (const std::string& param : params) {
        std::vector<int64_t> entries, elements, sigmoid;
        std::vector<float> scale;
        for (size_t i = 0; i < entries_.size(); ++i) {
            if (entries_[i].param != param) continue;
            entries.push_back(static_cast<int64_t>(i));
            elements.push_back(entries_[i].index);
            scale.push_back(static_cast<float>(entries_[i].scale));
            sigmoid.push_back(entries_[i].fn == Coefficient::Fn::sigmoid);
        }
        groups_.push_back({param, on_device(entries), on_device(elements), on_device(scale),
                           on_device(sigmoid).to(at::kBool)});
    }
}

void CoefficientTable::evaluate(const ParameterTable& parameters) {
    if (values_.is_meta()) return;
    grads_.zero_();
    for (const Group& group : groups_) {
        const at::Tensor s =
            parameters[group.param].value.view(-1).index_select(0, group.elements).to(at::kFloat);
        values_.index_copy_(0, group.entries,
                            at::where(group.is_sigmoid, at::sigmoid(s), s).mul_(group.scale));
    }
}

void CoefficientTable::backward(ParameterTable& parameters) const {
    if (values_.is_meta()) return;
    for (const Group& group : groups_) {
        Parameter& parameter = parameters[group.param];
        const at::Tensor s = parameter.value.view(-1).index_select(0, group.elements).to(at::kFloat);
        const at::Tensor sigma = at::sigmoid(s);
        const at::Tensor slope =
            at::where(group.is_sigmoid, sigma * (1 - sigma), at::ones_like(s)).mul_(group.scale);
        const at::Tensor grad = grads_.index_select(0, group.entries).mul_(slope);
        parameter.grad.view(-1).index_add_(0, group.elements, grad.to(parameter.grad.scalar_type()));
    }
}

}  // namespace speedrun
