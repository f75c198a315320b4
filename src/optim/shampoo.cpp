// Shampoo, arXiv 1802.09568, Algorithm 1: L <- L + G G^T, R <- R + G^T G, p -= lr * L^(-1/4) G R^(-1/4),
// where L and R begin with eps I. Beside it: averages instead of sums (preconditioner.beta < 1), roots made
// anew every n steps, momentum of G (as in the paper's experiments), and sides longer than
// preconditioner.max_size left alone, when the other side's root is the square root. A root that is kept
// blows up what the gradient has in directions that were small when it was made: behind layers that begin
// with zeros gradients grow by powers of ten, and ten steps are too many.
#include <ATen/ATen.h>

#include <algorithm>

#include "config/matrix_rules.h"
#include "optim/matrices.h"
#include "optim/rule.h"

namespace speedrun {
namespace {

class Shampoo final : public UpdateRule {
  public:
    explicit Shampoo(const MatrixRuleInput& input)
        : config_(input.config), row_(input.row), momentum_(at::zeros_like(input.part.grad)) {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const auto options = input.part.value.options().dtype(at::kFloat);
        for (const int64_t side : {rows, cols}) {
            const bool has = side <= config_.preconditioner.max_size;
            sums_.push_back(has ? at::zeros({matrices, side, side}, options) : at::Tensor());
            roots_.push_back(has ? at::zeros({matrices, side, side}, options) : at::Tensor());
        }
    }

    void step(Parameter& part, const RuleStep& step) override {
        const Matrices all(part, row_);
        const at::Tensor momentum = momentum_.view(row_.matrix_view);
        const bool anew = (step.t - 1) % config_.preconditioner.every_n_steps == 0;
        all.for_each_group([&](const auto& of) {
            const at::Tensor g = of(all.grad).to(at::kFloat), u = at::empty_like(g);
            add(of(sums_[0]), g.matmul(g.mT()));
            if (sums_[1].defined()) add(of(sums_[1]), g.mT().matmul(g));
            if (anew)
                for (const size_t side : {0U, 1U})
                    if (sums_[side].defined()) of(roots_[side]).copy_(root(of(sums_[side])));
            ops::momentum_update(of(all.grad), of(momentum), u, step.momentum, config_.momentum);
            at::Tensor x = u;
            if (roots_[0].defined()) x = of(roots_[0]).matmul(x);
            if (roots_[1].defined()) x = x.matmul(of(roots_[1]));
            ops::apply_matrix_update(x, {}, {}, of(all.value), of(all.copy),
                                     plain_step(config_, row_, step.lr_scale));
        });
    }

    std::vector<StateTensor> state() const override {
        std::vector<StateTensor> parts{{"momentum", momentum_}};
        for (const auto& [name, tensor] : {std::pair{"rows_sum", sums_[0]},
                                           {"cols_sum", sums_[1]},
                                           {"rows_root", roots_[0]},
                                           {"cols_root", roots_[1]}})
            if (tensor.defined()) parts.push_back({name, tensor});
        return parts;
    }

    // Eigenvalues and vectors of a symmetric matrix are about 9 n^3; here and there the product with them.
    RuleCost cost(bool) const override {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const auto m = static_cast<double>(rows), n = static_cast<double>(cols);
        const auto every = static_cast<double>(config_.preconditioner.every_n_steps);
        double flop = 0;
        int64_t work = 4 * rows * cols;
        for (size_t side = 0; side < 2; ++side) {
            if (!sums_[side].defined()) continue;
            const double s = side == 0 ? m : n;
            flop += 4 * m * n * s + 11 * s * s * s / every;
            work = std::max(work, 3 * 8 * sums_[side].numel() / std::max<int64_t>(1, matrices));
        }
        return {static_cast<double>(matrices) * flop,
                (3 * 4 * rows * cols + work) * std::min(matrices, ops::matrix_group(rows, cols))};
    }

  private:
    void add(const at::Tensor& sum, const at::Tensor& outer) const {
        if (!sum.defined()) return;
        const double beta = config_.preconditioner.beta;
        beta == 1 ? sum.add_(outer) : sum.lerp_(outer, 1 - beta);
    }

    // (sum + eps I)^(-1/4), or ^(-1/2) where it is the only one; in fp64, as the smallest eigenvalues count
    // most. Rounding may leave an eigenvalue of 0 below it.
    at::Tensor root(const at::Tensor& sum) const {
        const double power = sums_[0].defined() && sums_[1].defined() ? -0.25 : -0.5;
        const auto [values, vectors] = at::linalg_eigh(sum.to(at::kDouble));
        const at::Tensor powers = values.clamp_min(0).add(config_.preconditioner.eps).pow(power);
        return (vectors * powers.unsqueeze(-2)).matmul(vectors.mT());
    }

    MatrixConfig config_;
    OptimParamConfig row_;
    at::Tensor momentum_;
    std::vector<at::Tensor> sums_, roots_;  // of rows [n, rows, rows] and columns [n, cols, cols], fp32
};

}  // namespace

template <>
std::unique_ptr<UpdateRule> make_matrix_rule<matrix_rule_index("shampoo")>(const MatrixRuleInput& input) {
    return std::make_unique<Shampoo>(input);
}

}  // namespace speedrun
