// What an update X moves the weights p by along p itself, outward or inward, times a number of its own: with
// c = <X, p> / max(||p||^2, 1e-12), X <- (X - c p) + k c p, k = outward where c < 0, as -X is the step, else
// inward.
#include <ATen/ATen.h>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

class RadialBrake final : public PipelinePart {
  public:
    explicit RadialBrake(const MatrixRuleInput& input) : config_(input.config.length) {
        const auto& [matrices, rows, cols] = input.row.matrix_view;
        work_bytes_ = 3 * 4 * rows * cols;
    }

    void apply(PipelineWork& work, const PartStep&) override {
        const at::Tensor& u = work.settled();
        const at::Tensor p = work.value.to(at::kFloat);
        const at::Tensor c = inner_products(u, p) / ops::matrix_norms(p).square().clamp_min(1e-12);
        const at::Tensor change = c * at::where(c < 0, config_.outward - 1, config_.inward - 1);
        work.u = at::addcmul(u, p, of_matrices(change));
    }
    RuleCost cost() const override { return {.work_bytes = work_bytes_}; }

  private:
    MatrixConfig::Length config_;
    int64_t work_bytes_;
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("radial_brake")>(
    const MatrixRuleInput& input) {
    return std::make_unique<RadialBrake>(input);
}

}  // namespace speedrun
