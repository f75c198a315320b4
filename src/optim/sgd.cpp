// Stochastic gradients with momentum, as torch.optim.SGD has it: m <- mu m + g; p -= lr * m, or with Nesterov
// lr * (g + mu m). Gradients here are sums over a step's tokens (/ objective.grad_divisor), not means.
#include <ATen/ATen.h>

#include "config/matrix_rules.h"
#include "optim/matrices.h"
#include "optim/rule.h"

namespace speedrun {
namespace {

class Sgd final : public UpdateRule {
  public:
    explicit Sgd(const MatrixRuleInput& input)
        : config_(input.config), row_(input.row), momentum_(at::zeros_like(input.part.grad)) {}

    void step(Parameter& part, const RuleStep& step) override {
        const Matrices all(part, row_);
        const at::Tensor momentum = momentum_.view(row_.matrix_view);
        all.for_each_group([&](const auto& of) {
            const at::Tensor u = at::empty_like(of(all.grad), all.grad.options().dtype(at::kFloat));
            ops::momentum_update(of(all.grad), of(momentum), u, step.momentum, config_.momentum);
            ops::apply_matrix_update(u, {}, {}, of(all.value), of(all.copy),
                                     plain_step(config_, row_, step.lr_scale));
        });
    }

    std::vector<StateTensor> state() const override { return {{"momentum", momentum_}}; }

    RuleCost cost(bool fused) const override {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        return {.work_bytes =
                    (fused ? 1 : 6) * 4 * rows * cols * std::min(matrices, ops::matrix_group(rows, cols))};
    }

  private:
    MatrixConfig config_;
    OptimParamConfig row_;
    at::Tensor momentum_;
};

}  // namespace

template <>
std::unique_ptr<UpdateRule> make_matrix_rule<matrix_rule_index("sgd")>(const MatrixRuleInput& input) {
    return std::make_unique<Sgd>(input);
}

}  // namespace speedrun
