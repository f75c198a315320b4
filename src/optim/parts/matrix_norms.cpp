// Factors of whole matrices. AdaMuon's (MuonVariants): with n = ||u||_F before it was orthogonalised, s <-
// s + (1 - beta2) (n^2 - s), n / (||x||_F + eps) / (sqrt(s / correction) + eps). NorMuon's without a second
// moment: 0.2 sqrt(rows cols) / ||x||_F.
#include <ATen/ATen.h>

#include <cmath>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

class MatrixNorms final : public PipelinePart {
  public:
    explicit MatrixNorms(const MatrixRuleInput& input) : config_(input.config) {
        if (config_.second_moment == MatrixConfig::SecondMoment::matrix)
            second_moment_ =
                at::zeros({input.row.matrix_view[0], 1, 1}, input.part.value.options().dtype(at::kFloat));
    }

    void apply(PipelineWork& work, const PartStep&) override {
        // Without moments of lines, to restore a norm is to leave it.
        if (config_.scale == MatrixConfig::Scale::none)
            work.factors = of_gradients(work);
        else if (config_.scale == MatrixConfig::Scale::paper)
            work.factors = 0.2 * std::sqrt(static_cast<double>(work.u.size(1) * work.u.size(2))) /
                           ops::matrix_norms(work.u).clamp_min(1e-10);
        else if (second_moment_.defined())
            of_gradients(work);
    }
    // The second moment divides by its correction, a number that the last kernel alone reads.
    bool alike() const override { return !second_moment_.defined(); }
    std::vector<StateTensor> state() const override {
        if (!second_moment_.defined()) return {};
        return {{"second_moment", second_moment_}};
    }

  private:
    at::Tensor of_gradients(const PipelineWork& work) const {
        const at::Tensor n = ops::matrix_norms(work.direction), s = work.of(second_moment_).view(-1);
        s.lerp_(n.square(), 1 - config_.beta2);
        const at::Tensor root = (s / work.step.correction.now()).sqrt();
        return divided(divided(n, ops::matrix_norms(work.u)), root);
    }

    at::Tensor divided(const at::Tensor& a, const at::Tensor& b) const {
        return config_.eps_form == MatrixConfig::EpsForm::add ? a / (b + config_.eps)
                                                              : a / b.clamp_min(std::sqrt(config_.eps));
    }

    MatrixConfig config_;
    at::Tensor second_moment_;  // [n, 1, 1], fp32
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("matrix_norms")>(
    const MatrixRuleInput& input) {
    return std::make_unique<MatrixNorms>(input);
}

}  // namespace speedrun
