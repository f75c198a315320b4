#pragma once
#include <ATen/core/Tensor.h>

#include <array>

#include "config/config.h"
#include "optim/rule.h"

namespace speedrun {

// The element rule.
class Adam final : public UpdateRule {
  public:
    Adam(const AdamConfig& config, const OptimParamConfig& row, const Parameter& part);

    void step(Parameter& part, const RuleStep& step) override;
    std::vector<double> step_numbers(const RuleStep& step) const override;
    // "exp_avg", "exp_avg_sq": the parameter's shape, config.state_dtype (fp32 for parameters of fewer than 2
    // dimensions).
    std::vector<StateTensor> state() const override;
    RuleCost cost(bool fused) const override;

  private:
    AdamConfig config_;
    OptimParamConfig row_;
    std::array<double, 2> betas_;
    at::Tensor exp_avg_, exp_avg_sq_;
};

}  // namespace speedrun
