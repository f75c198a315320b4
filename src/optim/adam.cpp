#include "optim/adam.h"

#include <ATen/ATen.h>

#include <cmath>

#include "ops/cuda/gpu.h"
#include "ops/optim/adam_update.h"
#include "util/error.h"

namespace speedrun {

namespace {

at::ScalarType state_dtype(const AdamConfig& config, const Parameter& part) {
    if (config.state_dtype == AdamConfig::StateDtype::parameter) return part.value.scalar_type();
    return config.state_dtype == AdamConfig::StateDtype::bf16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace

Adam::Adam(const AdamConfig& config, const OptimParamConfig& row, const Parameter& part)
    : config_(config), row_(row), betas_(row.betas.value_or(std::array{config.beta1, config.beta2})) {
    const bool wide = part.value.dim() < 2;
    const auto options = part.value.options().dtype(wide ? at::kFloat : state_dtype(config, part));
    exp_avg_ = at::zeros(part.value.sizes(), options);
    exp_avg_sq_ = at::zeros(part.value.sizes(), options);
}

// eps, step_size and decay of an AdamStep.
std::vector<double> Adam::step_numbers(const RuleStep& step) const {
    check(step.t >= 1, "Adam counts its steps from 1");
    const double lr = config_.lr * row_.lr_mul * step.lr_scale, count = static_cast<double>(step.t);
    const auto correction = [&](double beta) { return row_.bias_correction ? 1 - std::pow(beta, count) : 1; };
    const double root = std::sqrt(correction(betas_[1]));
    const bool corrected = config_.eps_form == AdamConfig::EpsForm::corrected;
    const bool squared = config_.decay_coefficient == AdamConfig::DecayCoefficient::lr_squared;
    return {corrected ? config_.eps * root : config_.eps, lr * root / correction(betas_[0]),
            (squared ? lr * lr : lr) * config_.weight_decay * row_.wd_mul};
}

void Adam::step(Parameter& part, const RuleStep& step) {
    const std::vector<double> numbers = step_numbers(step);
    ops::adam_update(part.value, part.grad, exp_avg_, exp_avg_sq_,
                     {.beta1 = betas_[0],
                      .beta2 = betas_[1],
                      .eps = step.number(numbers, 0),
                      .step_size = step.number(numbers, 1),
                      .decay = step.number(numbers, 2),
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
