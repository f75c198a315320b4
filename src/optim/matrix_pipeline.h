#pragma once
#include "ops/optim/matrix_update.h"
#include "optim/rule.h"

namespace speedrun {

// The family of Muon, each member a choice of parts: momentum -> orthogonalize -> signs -> second moment ->
// scale -> weight decay -> step. The parts are functions: momentum_update, orthogonalize, running_root,
// take_signs, gradient_norm_factors, apply_matrix_update.
class MatrixPipeline final : public UpdateRule {
  public:
    explicit MatrixPipeline(const MatrixRuleInput& input);

    // lr = config.lr * step.lr_scale. For bf16 parameters lr and decay are rounded to bf16, as the reference
    // holds them in tensors of the parameter's dtype.
    void step(Parameter& part, const RuleStep& step) override;
    // None where the preconditioner is renewed on some steps, or matrices have a second moment each.
    std::vector<double> step_numbers(const RuleStep& step) const override;
    // "momentum": the parameter's shape, the gradient's dtype or fp32; "second_moment": [n, 1, cols] or [n,
    // rows, 1], the parameter's dtype, or [n, 1, 1], fp32; "preconditioner": [n, k, k], k = min(rows, cols),
    // fp32; "mantissa": the parameter's shape, int16.
    std::vector<StateTensor> state() const override;
    RuleCost cost(bool fused) const override;

    // What a step hands to apply_matrix_update.
    ops::MatrixStep numbers(const RuleStep& step) const;

  private:
    bool moments() const;  // a second moment of rows or columns
    at::Tensor orthogonal(const at::Tensor& u, const at::Tensor& preconditioner, int64_t t) const;
    at::Tensor factors(const at::Tensor& x, const at::Tensor& u, const at::Tensor& second_moment,
                       const ops::MatrixStep& step) const;

    MatrixConfig config_;
    OptimParamConfig row_;
    at::ScalarType dtype_;  // of what is updated: the value's, or fp32 where there is a mantissa
    at::Tensor momentum_, second_moment_, preconditioner_, mantissa_;
    at::Tensor lr_muls_;        // [n], fp32
    bool roots_exist_ = false;  // every matrix has one: known since this or an earlier step
};

// |x| with the signs of `of`, 0 where that is 0; in place (OGSignMuon of MuonVariants).
void take_signs(const at::Tensor& x, const at::Tensor& of);

// AdaMuon's numbers of each matrix, [n], fp32: with n = ||u||_F, s <- s + (1 - beta2) (n^2 - s), x * factor
// is x * n / (||x||_F + eps) / (sqrt(s / correction) + eps). `moment` holds s, [n, 1, 1], fp32.
at::Tensor gradient_norm_factors(const at::Tensor& x, const at::Tensor& u, const at::Tensor& moment,
                                 const ops::MatrixStep& step);

}  // namespace speedrun
