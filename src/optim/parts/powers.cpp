// PMuon, result 18 of track 3: the update u (not the gradient, as the file there overwrites that) between
// negative powers of its own covariances, sums that forget: C <- beta C + u^T u, O <- beta O + u u^T;
//   u <- P(u u^T + beta O + eps I) u P(u^T u + beta C + eps I)
// P(A): Q <- QR(A Q), l_i = max(q_i^T A q_i, eps), d = l^-exponent, Q diag(d) Q^T sqrt(n) / (||d|| + eps).
// The first Q is that of a random matrix, here the same for all matrices of a size and in every run.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <array>
#include <cmath>

#include "optim/basis.h"
#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

at::Tensor first_basis(int64_t size, at::Device device) {
    const at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(size));
    return std::get<0>(at::linalg_qr(at::randn({size, size}, generator, at::kFloat))).to(device);
}

class Powers final : public PipelinePart {
  public:
    explicit Powers(const MatrixRuleInput& input)
        : config_(input.config.direction), beta_(input.config.preconditioner.beta), row_(input.row) {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const auto options = input.part.value.options().dtype(at::kFloat);
        for (size_t i = 0; i < 2; ++i) {
            const int64_t side = i == 0 ? rows : cols;
            sides_[i] = {at::zeros({matrices, side, side}, options),
                         at::zeros({matrices, side, side}, options)};
        }
    }

    void apply(PipelineWork& work, const PartStep& step) override {
        std::array<at::Tensor, 2> power;
        for (size_t i = 0; i < 2; ++i) {
            const at::Tensor sum = work.of(sides_[i].average), basis = work.of(sides_[i].basis);
            if (step.t == 1) basis.copy_(first_basis(basis.size(-1), basis.device()).expand_as(basis));
            const at::Tensor own = outer_product(work.u, i);
            sum.mul_(beta_).add_(own);
            const at::Tensor covariance = own.add(sum, beta_);
            covariance.diagonal(0, -2, -1).add_(config_.eps);
            power[i] = negative_power(covariance, basis);
        }
        work.turn_to(power[0].matmul(work.u).matmul(power[1]));
    }

    bool alike() const override { return false; }
    bool reads_fp32() const override { return true; }
    std::vector<StateTensor> state() const override {
        return {{"rows_sum", sides_[0].average},
                {"rows_basis", sides_[0].basis},
                {"cols_sum", sides_[1].average},
                {"cols_basis", sides_[1].basis}};
    }

    // Sums and powers times u; A Q twice, Q diag(d) Q^T, and QR with its Q.
    RuleCost cost() const override {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const auto m = static_cast<double>(rows), n = static_cast<double>(cols);
        double flop = 0;
        for (const double s : {m, n}) flop += 2 * 2 * m * n * s + (3 * 2 + 8.0 / 3) * s * s * s;
        return {flop, 4 * (2 * rows * cols + 5 * rows * rows + 5 * cols * cols)};
    }

  private:
    at::Tensor negative_power(const at::Tensor& a, const at::Tensor& basis) const {
        basis.copy_(std::get<0>(at::linalg_qr(a.matmul(basis))));
        const at::Tensor values = (basis * a.matmul(basis)).sum(-2, /*keepdim=*/true).clamp_min_(config_.eps);
        const at::Tensor d = values.pow(-config_.exponent);
        const at::Tensor norm = of_matrices(ops::matrix_norms(d)).add_(config_.eps);
        const double size = std::sqrt(static_cast<double>(a.size(-1)));
        return (basis * (d * size / norm)).matmul(basis.mT());
    }

    MatrixConfig::Direction config_;
    double beta_;
    OptimParamConfig row_;
    Sides sides_;  // O and C; their averages are sums
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("powers")>(
    const MatrixRuleInput& input) {
    return std::make_unique<Powers>(input);
}

}  // namespace speedrun
