// SOAP, arXiv 2409.11321, Algorithm 3: Adam in the eigenbasis of Shampoo's preconditioners.
//   G' = Q_L^T G Q_R; M <- beta1 M + (1 - beta1) G; V <- beta2 V + (1 - beta2) G'^2
//   u = Q_L (M' / (1 - beta1^t) / (sqrt(V / (1 - beta2^t)) + eps)) Q_R^T with M' = Q_L^T M Q_R
//   L <- beta L + (1 - beta) G G^T, R likewise; every n steps Q <- QR(L Q), columns by descending diag(Q^T L
//   Q)
// As https://github.com/nikhilvyas/SOAP has it, the first step only makes L, R and Q, and updates nothing; M
// is kept in the parameter's own basis (there it is turned back and forth). Sides longer than
// preconditioner.max_size keep Q = I.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "config/matrix_rules.h"
#include "optim/basis.h"
#include "optim/matrices.h"
#include "optim/rule.h"

namespace speedrun {
namespace {

class Soap final : public UpdateRule {
  public:
    explicit Soap(const MatrixRuleInput& input) : config_(input.config), row_(input.row) {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const auto options = input.part.value.options().dtype(at::kFloat);
        exp_avg_ = at::zeros({matrices, rows, cols}, options);
        exp_avg_sq_ = at::zeros({matrices, rows, cols}, options);
        for (size_t i = 0; i < 2; ++i) {
            const int64_t side = i == 0 ? rows : cols;
            if (side > config_.preconditioner.max_size) continue;
            sides_[i] = {at::zeros({matrices, side, side}, options),
                         at::zeros({matrices, side, side}, options)};
        }
    }

    void step(Parameter& part, const RuleStep& step) override {
        const Matrices all(part, row_);
        all.for_each_group([&](const auto& of) {
            const at::Tensor g = of(all.grad).to(at::kFloat);
            const Sides sides{Side{of(sides_[0].average), of(sides_[0].basis)},
                              Side{of(sides_[1].average), of(sides_[1].basis)}};
            if (step.t > 1)
                ops::apply_matrix_update(update(g, of(exp_avg_), of(exp_avg_sq_), sides, step.t - 1), {}, {},
                                         of(all.value), of(all.copy),
                                         plain_step(config_, row_, step.lr_scale));
            learn(g, of(exp_avg_sq_), sides, step.t);
            of(all.grad).zero_();
        });
    }

    std::vector<StateTensor> state() const override {
        std::vector<StateTensor> parts{{"exp_avg", exp_avg_}, {"exp_avg_sq", exp_avg_sq_}};
        for (size_t i = 0; i < 2; ++i) {
            if (!sides_[i].average.defined()) continue;
            const std::string side = i == 0 ? "rows" : "cols";
            parts.push_back({side + "_average", sides_[i].average});
            parts.push_back({side + "_basis", sides_[i].basis});
        }
        return parts;
    }

    RuleCost cost(bool) const override {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const auto m = static_cast<double>(rows), n = static_cast<double>(cols);
        const auto every = static_cast<double>(config_.preconditioner.every_n_steps);
        double flop = 0;
        int64_t work = 5 * 4 * rows * cols;
        for (size_t i = 0; i < 2; ++i) {
            if (!sides_[i].average.defined()) continue;
            const double s = i == 0 ? m : n;
            // Three turns and G G^T; then L Q, Q^T L Q and the QR of it with its Q.
            flop += 4 * 2 * m * n * s + (4 + 8.0 / 3) * s * s * s / every;
            // The first basis is found in fp64.
            work += 4 * 8 * sides_[i].average.numel() / std::max<int64_t>(1, matrices);
        }
        return {static_cast<double>(matrices) * flop,
                work * std::min(matrices, ops::matrix_group(rows, cols))};
    }

  private:
    // Adam's t-th step in the basis.
    at::Tensor update(const at::Tensor& g, const at::Tensor& m, const at::Tensor& v, const Sides& sides,
                      int64_t t) const {
        const auto count = static_cast<double>(t);
        const at::Tensor g_turned = into_basis(g, sides);
        m.lerp_(g, 1 - config_.beta1);
        v.mul_(config_.beta2).addcmul_(g_turned, g_turned, 1 - config_.beta2);
        const at::Tensor divisor = (v / (1 - std::pow(config_.beta2, count))).sqrt_().add_(config_.eps);
        const at::Tensor u = into_basis(m, sides).div_(divisor).div_(1 - std::pow(config_.beta1, count));
        return from_basis(u, sides).contiguous();
    }

    void learn(const at::Tensor& g, const at::Tensor& v, const Sides& sides, int64_t t) const {
        for (size_t i = 0; i < 2; ++i) {
            const Side& side = sides[i];
            if (!side.average.defined()) continue;
            side.average.lerp_(outer_product(g, i), 1 - config_.preconditioner.beta);
            if (t == 1)
                side.basis.copy_(eigenvectors(side.average));
            else if ((t - 1) % config_.preconditioner.every_n_steps == 0)
                renew_basis(side, v, i, /*sort=*/true);
        }
    }

    MatrixConfig config_;
    OptimParamConfig row_;
    at::Tensor exp_avg_, exp_avg_sq_;  // M and V, [n, rows, cols], fp32
    Sides sides_;
};

}  // namespace

template <>
std::unique_ptr<UpdateRule> make_matrix_rule<matrix_rule_index("soap")>(const MatrixRuleInput& input) {
    return std::make_unique<Soap>(input);
}

}  // namespace speedrun
