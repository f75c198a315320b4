#pragma once
#include <memory>
#include <vector>

#include "ops/optim/matrix_update.h"
#include "optim/parts/part.h"
#include "optim/rule.h"

namespace speedrun {

// The family of Muon, each member a choice of parts (parts/table.h): the momentum comes first, then the parts
// in the table's order, at last what they leave to ops::apply_matrix_update.
class MatrixPipeline final : public UpdateRule {
  public:
    explicit MatrixPipeline(const MatrixRuleInput& input);

    // lr = config.lr * step.lr_scale. For bf16 parameters lr and decay are rounded to bf16, as the reference
    // holds them in tensors of the parameter's dtype.
    void step(Parameter& part, const RuleStep& step) override;
    // None where steps of a part differ in more than numbers.
    std::vector<double> step_numbers(const RuleStep& step) const override;
    // "momentum": the parameter's shape, the gradient's dtype or fp32; then those of the parts, [n, ...];
    // "mantissa": the parameter's shape, int16.
    std::vector<StateTensor> state() const override;
    RuleCost cost(bool fused) const override;

    // What a step hands to apply_matrix_update.
    ops::MatrixStep numbers(const RuleStep& step) const;

  private:
    at::ScalarType update_dtype() const;
    void step_group(PipelineWork& work, const at::Tensor& grad, const at::Tensor& momentum,
                    const at::Tensor& copy, const ops::StepNumber& mu, const std::vector<PartStep>& steps);
    at::Tensor update_of(const at::Tensor& grad, const at::Tensor& momentum, const ops::StepNumber& mu) const;

    MatrixConfig config_;
    OptimParamConfig row_;
    at::ScalarType dtype_;  // of what is updated: the value's, or fp32 where there is a mantissa
    std::vector<std::unique_ptr<PipelinePart>> parts_;
    bool reads_gradient_ = false;     // a part does
    at::Tensor momentum_, mantissa_;  // undefined: there is none
    at::Tensor lr_muls_;              // [n], fp32
};

}  // namespace speedrun
