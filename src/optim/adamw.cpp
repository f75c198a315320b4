// AdamW on matrices: arXiv 1711.05101, Algorithm 2, in the form of torch.optim.AdamW. With decay "cautious"
// it is the AdamW of arXiv 2510.12402 (there decay_coefficient "constant").
//   m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g^2
//   u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
#include <ATen/ATen.h>

#include <cmath>

#include "config/matrix_rules.h"
#include "optim/matrices.h"
#include "optim/rule.h"

namespace speedrun {
namespace {

class MatrixAdamW final : public UpdateRule {
  public:
    explicit MatrixAdamW(const MatrixRuleInput& input)
        : config_(input.config),
          row_(input.row),
          exp_avg_(at::zeros(input.row.matrix_view, input.part.value.options().dtype(at::kFloat))),
          exp_avg_sq_(at::zeros_like(exp_avg_)) {}

    void step(Parameter& part, const RuleStep& step) override {
        const auto t = static_cast<double>(step.t);
        const double correction1 = 1 - std::pow(config_.beta1, t),
                     correction2 = 1 - std::pow(config_.beta2, t);
        const Matrices all(part, row_);
        all.for_each_group([&](const auto& of) {
            const at::Tensor g = of(all.grad).to(at::kFloat), m = of(exp_avg_), v = of(exp_avg_sq_);
            m.lerp_(g, 1 - config_.beta1);
            v.mul_(config_.beta2).addcmul_(g, g, 1 - config_.beta2);
            at::Tensor u = (v / correction2).sqrt_().add_(config_.eps);
            at::div_out(u, m, u).div_(correction1);
            ops::apply_matrix_update(u, {}, {}, of(all.value), of(all.copy),
                                     plain_step(config_, row_, step.lr_scale));
            of(all.grad).zero_();
        });
    }

    std::vector<StateTensor> state() const override {
        return {{"exp_avg", exp_avg_}, {"exp_avg_sq", exp_avg_sq_}};
    }

    RuleCost cost(bool fused) const override {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        return {.work_bytes =
                    (fused ? 2 : 7) * 4 * rows * cols * std::min(matrices, ops::matrix_group(rows, cols))};
    }

  private:
    MatrixConfig config_;
    OptimParamConfig row_;
    at::Tensor exp_avg_, exp_avg_sq_;  // [n, rows, cols], fp32
};

}  // namespace

template <>
std::unique_ptr<UpdateRule> make_matrix_rule<matrix_rule_index("adamw")>(const MatrixRuleInput& input) {
    return std::make_unique<MatrixAdamW>(input);
}

}  // namespace speedrun
