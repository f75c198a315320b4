#pragma once
#include <memory>

#include "optim/rule.h"

namespace speedrun {

// A rule with what track 3 puts around all of them: a lookahead (LookaheadConfig), and a running average of
// the last weights (TailEmaConfig). Both have the parameter's dtype, as the reference's have: of a bf16 table
// the average step stalls where a change is below half a unit of it.
class Surrounded final : public UpdateRule {
  public:
    Surrounded(std::unique_ptr<UpdateRule> rule, const OptimizerConfig& config, const OptimParamConfig& row,
               const Parameter& part);

    void run_ahead(Parameter& part, const RuleStep& step) override;
    void turn_back(Parameter& part) override;
    // The rule's step, and what follows from where it leads.
    void step(Parameter& part, const RuleStep& step) override;
    // (1 - weight) value + weight average
    at::Tensor averaged(const Parameter& part, double weight) const override;
    // The rule's, and "average_step", "previous", "tail_ema", each with the parameter's shape and dtype.
    std::vector<StateTensor> state() const override;
    RuleCost cost(bool fused) const override;

  private:
    std::unique_ptr<UpdateRule> rule_;
    double ema_ = 0, tau_ = 1;
    at::Tensor average_step_, previous_;  // undefined: there is no lookahead
    at::Tensor tail_ema_;                 // undefined: the parameter has no average
};

// The rule itself where the config has nothing around it, or the row is a buffer.
std::unique_ptr<UpdateRule> surround(std::unique_ptr<UpdateRule> rule, const OptimizerConfig& config,
                                     const OptimParamConfig& row, const Parameter& part);

}  // namespace speedrun
