#include "optim/surrounded.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace speedrun {

Surrounded::Surrounded(std::unique_ptr<UpdateRule> rule, const OptimizerConfig& config,
                       const OptimParamConfig& row, const Parameter& part)
    : rule_(std::move(rule)) {
    if (config.lookahead) {
        ema_ = config.lookahead->ema;
        average_step_ = at::zeros_like(part.value);
        previous_ = at::zeros_like(part.value);
    }
    if (!config.tail_ema) return;
    tau_ = config.tail_ema->tau;
    const auto& without = config.tail_ema->without;
    if (std::ranges::find(without, row.param) == without.end()) tail_ema_ = at::zeros_like(part.value);
}

void Surrounded::run_ahead(Parameter& part, const RuleStep& step) {
    if (!previous_.defined()) return;
    if (step.run_step == 0) previous_.copy_(part.value);
    if (step.lookahead == 0) return;
    part.value.add_(average_step_, step.lookahead);
    if (!part.used.is_same(part.value)) part.used.copy_(part.value);
}

void Surrounded::turn_back(Parameter& part) {
    if (!previous_.defined()) return;
    part.value.copy_(previous_);
    if (!part.used.is_same(part.value)) part.used.copy_(part.value);
}

void Surrounded::step(Parameter& part, const RuleStep& step) {
    rule_->step(part, step);
    if (previous_.defined()) {
        average_step_.lerp_(part.value - previous_, 1 - ema_);
        previous_.copy_(part.value);
    }
    if (!tail_ema_.defined() || !step.averages) return;
    if (step.restarts_average)
        tail_ema_.copy_(part.value);
    else
        tail_ema_.lerp_(part.value, 1 / tau_);
}

at::Tensor Surrounded::averaged(const Parameter& part, double weight) const {
    return tail_ema_.defined() ? part.value.lerp(tail_ema_, weight) : tail_ema_;
}

std::vector<StateTensor> Surrounded::state() const {
    std::vector<StateTensor> all = rule_->state();
    if (previous_.defined()) {
        all.push_back({"average_step", average_step_});
        all.push_back({"previous", previous_});
    }
    if (tail_ema_.defined()) all.push_back({"tail_ema", tail_ema_});
    return all;
}

// The change of a step is a temporary of its own.
RuleCost Surrounded::cost(bool fused) const {
    RuleCost cost = rule_->cost(fused);
    if (previous_.defined())
        cost.work_bytes = std::max(cost.work_bytes, static_cast<int64_t>(previous_.nbytes()));
    return cost;
}

std::unique_ptr<UpdateRule> surround(std::unique_ptr<UpdateRule> rule, const OptimizerConfig& config,
                                     const OptimParamConfig& row, const Parameter& part) {
    const bool bare = !config.lookahead && !config.tail_ema;
    if (bare || row.rule == OptimParamConfig::Rule::none) return rule;
    return std::make_unique<Surrounded>(std::move(rule), config, row, part);
}

}  // namespace speedrun
