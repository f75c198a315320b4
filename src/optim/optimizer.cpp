#include "optim/optimizer.h"

#include <ATen/ATen.h>

#include "util/error.h"

namespace speedrun {

Optimizer::Optimizer(const Config& config, ParameterTable& table)
    : table_(table), adam_step_(at::zeros({1}, at::kLong)) {
    for (const OptimParamConfig& row : config.optimizer.params) {
        const Parameter& parameter = table[row.param];
        const bool added =
            row.rule == OptimParamConfig::Rule::adam
                ? adam_.try_emplace(row.param, config.optimizer.adam, row, parameter).second
                : normuon_.try_emplace(row.param, config.optimizer.normuon, row, parameter).second;
        check(added, row.param + " has two rows in the optimizer's table");
    }
    check(adam_.size() + normuon_.size() == table.all().size(),
          "a parameter has no row, or two, in the optimizer's table");
}

void Optimizer::step(const StepSettings& settings) {
    const int64_t t = adam_step_.item<int64_t>() + 1;
    for (Parameter& parameter : table_.all()) {
        const auto matrix_rule = normuon_.find(parameter.config.name);
        if (matrix_rule != normuon_.end()) {
            matrix_rule->second.step(parameter, settings.lr_scale, settings.muon_momentum);
        } else if (settings.adam_steps) {
            adam_.at(parameter.config.name).step(parameter, settings.lr_scale, t);
        }
    }
    if (settings.adam_steps) adam_step_.fill_(t);
}

void Optimizer::reset() {
    for (const NamedTensor& part : state()) part.tensor.zero_();
}

std::vector<NamedTensor> Optimizer::state() const {
    std::vector<NamedTensor> parts;
    for (const Parameter& parameter : table_.all()) {
        const std::string& name = parameter.config.name;
        if (const auto found = normuon_.find(name); found != normuon_.end()) {
            parts.push_back({name + ".momentum", found->second.momentum()});
            const at::Tensor& moment = found->second.second_moment();
            if (moment.defined()) parts.push_back({name + ".second_moment", moment});
        } else {
            const Adam& adam = adam_.at(name);
            parts.push_back({name + ".exp_avg", adam.exp_avg()});
            parts.push_back({name + ".exp_avg_sq", adam.exp_avg_sq()});
        }
    }
    parts.push_back({"adam.step", adam_step_});
    return parts;
}

}  // namespace speedrun
