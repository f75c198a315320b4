#include "optim/adam.h"

#include <ATen/ATen.h>

#include <cmath>

#include "ops/cuda/gpu.h"
#include "ops/dtype.h"
#include "ops/optim/adam_update.h"
#include "util/error.h"

namespace speedrun {

Adam::Adam(const AdamConfig& config, const OptimParamConfig& row, const Parameter& part)
    : config_(config), row_(row), betas_(row.betas.value_or(std::array{config.beta1, config.beta2})) {
    const bool wide = part.value.dim() < 2;
    const auto options = part.value.options().dtype(wide ? at::kFloat : scalar_type(config.state_dtype));
    exp_avg_ = at::zeros(part.value.sizes(), options);
    exp_avg_sq_ = at::zeros(part.value.sizes(), options);
}

// step_size and decay of an AdamStep.
std::vector<double> Adam::step_numbers(const RuleStep& step) const {
    check(step.t >= 1, "Adam counts its steps from 1");
    const double lr = config_.lr * row_.lr_mul * step.lr_scale, count = static_cast<double>(step.t);
    const double correction1 = 1 - std::pow(betas_[0], count), correction2 = 1 - std::pow(betas_[1], count);
    const bool squared = config_.decay_coefficient == AdamConfig::DecayCoefficient::lr_squared;
    return {lr * std::sqrt(correction2) / correction1,
            (squared ? lr * lr : lr) * config_.weight_decay * row_.wd_mul};
}

void Adam::step(Parameter& part, const RuleStep& step) {
    const std::vector<double> numbers = step_numbers(step);
    ops::adam_update(part.value, part.grad, exp_avg_, exp_avg_sq_,
                     {.beta1 = betas_[0],
                      .beta2 = betas_[1],
                      .eps = config_.eps,
                      .step_size = step.number(numbers, 0),
                      .decay = step.number(numbers, 1),
                      .decay_kind = config_.decay});
    if (!part.used.is_same(part.value)) part.used.copy_(part.value);
}

std::vector<StateTensor> Adam::state() const {
    return {{"exp_avg", exp_avg_}, {"exp_avg_sq", exp_avg_sq_}};
}

// ATen's adam_update: g, m, v, root, quotient and value in fp32.
RuleCost Adam::cost(bool fused) const {
    return {.work_bytes = fused ? 0 : 6 * 4 * exp_avg_.numel()};
}

}  // namespace speedrun
