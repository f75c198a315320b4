// KL-SOAP, arXiv 2509.03378, as result 19 of track 3 has it. The first step only looks at the gradient: L = g
// g^T / cols, R = g^T g / rows, their eigenvectors, and inverse roots l, r of eigenvalues, all 0.1^-0.5. Then
//   x = Q_L^T g Q_R; m <- beta1 m + (1 - beta1) x; v <- beta2 v + (1 - beta2) x^2, all in the bases
//   u = Q_L (m / (sqrt(v) + eps)) Q_R^T
//   a = diag(r) Q_R^T g^T, b = diag(l) Q_L^T g; L <- beta L + (1 - beta) a^T a / cols, R likewise, b^T b /
//   rows l <- min(max(beta l^-2 + (1 - beta) mean_j (x_ij r_j)^2, 1e-30)^-0.5, 4000), r likewise, from the
//   old r, l
// and every n steps Q <- QR(L Q), through which m is turned. There is no bias correction.
#include <ATen/ATen.h>

#include <cmath>

#include "optim/basis.h"
#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

constexpr double kFirstEigenvalue = 0.1, kLeastEigenvalue = 1e-30, kMostInverseRoot = 4000;

class KlSoap final : public PipelinePart {
  public:
    explicit KlSoap(const MatrixRuleInput& input)
        : config_(input.config.direction), basis_(input.config.preconditioner) {
        const auto& [matrices, rows, cols] = input.row.matrix_view;
        const auto options = input.part.value.options().dtype(at::kFloat);
        exp_avg_ = at::zeros({matrices, rows, cols}, options);
        exp_avg_sq_ = at::zeros({matrices, rows, cols}, options);
        for (size_t i = 0; i < 2; ++i) {
            const int64_t side = i == 0 ? rows : cols;
            sides_[i] = {at::zeros({matrices, side, side}, options),
                         at::zeros({matrices, side, side}, options)};
            inverse_roots_[i] = at::zeros({matrices, side}, options);
        }
    }

    void apply(PipelineWork& work, const PartStep& step) override {
        const Sides sides{Side{work.of(sides_[0].average), work.of(sides_[0].basis)},
                          Side{work.of(sides_[1].average), work.of(sides_[1].basis)}};
        const at::Tensor& g = work.u;
        if (step.t == 1) {
            begin(work, g, sides);
            return;
        }
        const at::Tensor x = into_basis(g, sides), m = work.of(exp_avg_), v = work.of(exp_avg_sq_);
        m.lerp_(x, 1 - config_.beta1);
        v.mul_(config_.beta2).addcmul_(x, x, 1 - config_.beta2);
        const at::Tensor u = from_basis(m / v.sqrt().add_(config_.eps), sides);
        learn(work, x, g, sides);
        if ((step.t - 1) % basis_.every_n_steps == 0) renew(m, sides);
        work.turn_to(u);
    }

    bool alike() const override { return false; }
    bool reads_fp32() const override { return true; }
    std::vector<StateTensor> state() const override {
        return {{"exp_avg", exp_avg_},
                {"exp_avg_sq", exp_avg_sq_},
                {"rows_average", sides_[0].average},
                {"rows_basis", sides_[0].basis},
                {"rows_inverse_root", inverse_roots_[0]},
                {"cols_average", sides_[1].average},
                {"cols_basis", sides_[1].basis},
                {"cols_inverse_root", inverse_roots_[1]}};
    }

    // Into the bases and out, the whitened gradient and its average; then L Q, QR with its Q, and m turned.
    RuleCost cost() const override {
        const auto m = static_cast<double>(exp_avg_.size(1)), n = static_cast<double>(exp_avg_.size(2));
        double flop = 0;
        for (const double s : {m, n})
            flop += 4 * 2 * m * n * s + ((2 + 8.0 / 3) * s * s * s + 2 * 2 * m * n * s) /
                                            static_cast<double>(basis_.every_n_steps);
        const int64_t side = std::max(exp_avg_.size(1), exp_avg_.size(2));
        return {flop, 4 * 6 * exp_avg_.size(1) * exp_avg_.size(2) + 4 * 8 * side * side};
    }

  private:
    void begin(PipelineWork& work, const at::Tensor& g, const Sides& sides) const {
        for (size_t i = 0; i < 2; ++i) {
            sides[i].average.copy_(outer_product(g, i) / static_cast<double>(g.size(i == 0 ? 2 : 1)));
            sides[i].basis.copy_(eigenvectors(sides[i].average));
            work.of(inverse_roots_[i]).fill_(1 / std::sqrt(kFirstEigenvalue));
        }
        work.rests = true;
    }

    void learn(const PipelineWork& work, const at::Tensor& x, const at::Tensor& g, const Sides& sides) const {
        const double rest = 1 - basis_.beta;
        const at::Tensor l = work.of(inverse_roots_[0]), r = work.of(inverse_roots_[1]);
        const at::Tensor of_rows = (x * r.unsqueeze(-2)).square_().mean(-1),
                         of_cols = (x * l.unsqueeze(-1)).square_().mean(-2);
        const at::Tensor a = r.unsqueeze(-1) * sides[1].basis.mT().matmul(g.mT()),
                         b = l.unsqueeze(-1) * sides[0].basis.mT().matmul(g);
        sides[0].average.lerp_(a.mT().matmul(a) / static_cast<double>(g.size(2)), rest);
        sides[1].average.lerp_(b.mT().matmul(b) / static_cast<double>(g.size(1)), rest);
        for (const auto& [root, diagonal] : {std::pair{l, of_rows}, {r, of_cols}})
            root.copy_(root.square()
                           .reciprocal_()
                           .lerp_(diagonal, rest)
                           .clamp_min_(kLeastEigenvalue)
                           .rsqrt_()
                           .clamp_max_(kMostInverseRoot));
    }

    void renew(const at::Tensor& m, const Sides& sides) const {
        const at::Tensor own = from_basis(m, sides);
        for (size_t i = 0; i < 2; ++i) renew_basis(sides[i], exp_avg_sq_, i, /*sort=*/false);
        m.copy_(into_basis(own, sides));
    }

    MatrixConfig::Direction config_;
    MatrixConfig::Preconditioner basis_;
    at::Tensor exp_avg_, exp_avg_sq_;  // m and v, [n, rows, cols], fp32
    Sides sides_;
    std::array<at::Tensor, 2> inverse_roots_;  // l and r, [n, side], fp32
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("kl_soap")>(
    const MatrixRuleInput& input) {
    return std::make_unique<KlSoap>(input);
}

}  // namespace speedrun
