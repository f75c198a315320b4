// What ||p|| is after a step. hyperball: what it was, and before that the update is made as long: q = p - lr
// u
// ||p|| / max(||u||, 1e-10); p <- q ||p|| / max(||q||, 1e-10). pinned: with r = max(||p||, 1e-8), what the
// step along p makes of it: max(r - lr <u, p> / r, 1e-8).
#include <ATen/ATen.h>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

using Length = MatrixConfig::Length;

class Radius final : public PipelinePart {
  public:
    explicit Radius(const MatrixRuleInput& input) : hyperball_(is_hyperball(input.config.length)) {
        const auto& [matrices, rows, cols] = input.row.matrix_view;
        work_bytes_ = 2 * 4 * rows * cols;
    }

    void apply(PipelineWork& work, const PartStep&) override {
        const at::Tensor& u = work.settled();
        const at::Tensor norms = ops::matrix_norms(work.value);
        if (hyperball_) {
            radius_ = norms;
            work.factors = norms / ops::matrix_norms(u).clamp_min(kLeastUpdate);
            return;
        }
        const at::Tensor before = norms.clamp_min(kLeastRadius);
        at::Tensor along = times(inner_products(u, work.value), work.step.lr);
        if (work.step.lr_muls.defined()) along = along * work.step.lr_muls;
        radius_ = (before - along / before).clamp_min(kLeastRadius);
    }

    void finish(PipelineWork& work, const PartStep&) override {
        const double least = hyperball_ ? kLeastUpdate : kLeastRadius;
        work.value.mul_(of_matrices(radius_ / ops::matrix_norms(work.value).clamp_min(least)));
        work.rescaled = true;
    }
    RuleCost cost() const override { return {.work_bytes = work_bytes_}; }

  private:
    static constexpr double kLeastUpdate = 1e-10, kLeastRadius = 1e-8;
    static bool is_hyperball(const Length& length) { return length.kind == Length::Kind::hyperball; }

    bool hyperball_;
    int64_t work_bytes_;
    at::Tensor radius_;  // [n], fp32
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("radius")>(
    const MatrixRuleInput& input) {
    return std::make_unique<Radius>(input);
}

}  // namespace speedrun
