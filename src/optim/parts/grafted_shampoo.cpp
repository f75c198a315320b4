// Meta's Shampoo, arXiv 2309.06497, grafted to Adam, as result 21 of track 3 sets it:
//   m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g^2; L <- beta L + (1 - beta) g g^T, R likewise
//   A = m' / (sqrt(v / (1 - beta2^t)) + eps), m' = m / (1 - beta1^t)
//   u = A before start_step; then P ||A||_F / (||P||_F + 1e-16), P = (L / (1 - beta^t))^(-1/4) m' (R
//   ...)^(-1/4)
// with roots made every n steps, at t = n, 2 n, ...; where the least eigenvalue is below preconditioner.eps,
// all are moved so that it is that.
#include <ATen/ATen.h>

#include <cmath>

#include "optim/basis.h"
#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

class GraftedShampoo final : public PipelinePart {
  public:
    explicit GraftedShampoo(const MatrixRuleInput& input)
        : config_(input.config.direction), basis_(input.config.preconditioner) {
        const auto& [matrices, rows, cols] = input.row.matrix_view;
        const auto options = input.part.value.options().dtype(at::kFloat);
        exp_avg_ = at::zeros({matrices, rows, cols}, options);
        exp_avg_sq_ = at::zeros({matrices, rows, cols}, options);
        for (size_t i = 0; i < 2; ++i) {
            const int64_t side = i == 0 ? rows : cols;
            averages_[i] = at::zeros({matrices, side, side}, options);
            roots_[i] = at::zeros({matrices, side, side}, options);
        }
    }

    void apply(PipelineWork& work, const PartStep& step) override {
        const at::Tensor &g = work.u, m = work.of(exp_avg_), v = work.of(exp_avg_sq_);
        const auto correction = [t = static_cast<double>(step.t)](double beta) {
            return 1 - std::pow(beta, t);
        };
        m.lerp_(g, 1 - config_.beta1);
        v.mul_(config_.beta2).addcmul_(g, g, 1 - config_.beta2);
        for (size_t i = 0; i < 2; ++i) {
            const at::Tensor average = work.of(averages_[i]);
            average.lerp_(outer_product(g, i), 1 - basis_.beta);
            if (step.t >= config_.start_step && step.t % basis_.every_n_steps == 0)
                work.of(roots_[i]).copy_(inverse_fourth_root(average / correction(basis_.beta)));
        }
        const at::Tensor mean = m / correction(config_.beta1);
        const at::Tensor adam = mean / (v / correction(config_.beta2)).sqrt_().add_(config_.eps);
        work.turn_to(step.t < config_.start_step ? adam : grafted(work, mean, adam));
    }

    bool alike() const override { return false; }
    bool reads_fp32() const override { return true; }
    std::vector<StateTensor> state() const override {
        return {{"exp_avg", exp_avg_},    {"exp_avg_sq", exp_avg_sq_},    {"rows_average", averages_[0]},
                {"rows_root", roots_[0]}, {"cols_average", averages_[1]}, {"cols_root", roots_[1]}};
    }

    // Averages and roots times m; eigenvalues and vectors of a symmetric matrix are about 9 n^3, and a root
    // is one product more.
    RuleCost cost() const override {
        const auto m = static_cast<double>(exp_avg_.size(1)), n = static_cast<double>(exp_avg_.size(2));
        double flop = 0;
        for (const double s : {m, n})
            flop += 2 * 2 * m * n * s + 11 * s * s * s / static_cast<double>(basis_.every_n_steps);
        const int64_t side = std::max(exp_avg_.size(1), exp_avg_.size(2));
        return {flop, 4 * 4 * exp_avg_.size(1) * exp_avg_.size(2) + 3 * 8 * side * side};
    }

  private:
    // In fp64, as the smallest eigenvalues count most.
    at::Tensor inverse_fourth_root(const at::Tensor& average) const {
        const auto [values, vectors] = at::linalg_eigh(average.to(at::kDouble));
        const at::Tensor least = values.amin(-1, /*keepdim=*/true);
        const at::Tensor moved = values + at::where(least < basis_.eps, basis_.eps - least, 0.0);
        return (vectors * moved.pow(-0.25).unsqueeze(-2)).matmul(vectors.mT());
    }

    at::Tensor grafted(const PipelineWork& work, const at::Tensor& mean, const at::Tensor& adam) const {
        const at::Tensor p = work.of(roots_[0]).matmul(mean).matmul(work.of(roots_[1]));
        return p * of_matrices(ops::matrix_norms(adam) / ops::matrix_norms(p).add_(1e-16));
    }

    MatrixConfig::Direction config_;
    MatrixConfig::Preconditioner basis_;
    at::Tensor exp_avg_, exp_avg_sq_;             // m and v, [n, rows, cols], fp32
    std::array<at::Tensor, 2> averages_, roots_;  // of rows and columns, [n, side, side], fp32
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("grafted_shampoo")>(
    const MatrixRuleInput& input) {
    return std::make_unique<GraftedShampoo>(input);
}

}  // namespace speedrun
