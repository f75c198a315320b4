// The least length of an update X, relative to the weights p: X *= max(1, floor max(||p||, 1e-8) / max(||X||,
// 1e-8)), of each matrix or of each row.
#include <ATen/ATen.h>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

class UpdateFloor final : public PipelinePart {
  public:
    explicit UpdateFloor(const MatrixRuleInput& input) : config_(input.config.length) {
        const auto& [matrices, rows, cols] = input.row.matrix_view;
        work_bytes_ = 2 * 4 * rows * cols;
    }

    void apply(PipelineWork& work, const PartStep&) override {
        const at::Tensor& u = work.settled();
        const at::Tensor factor = (config_.floor * lengths(work.value) / lengths(u)).clamp_min(1);
        if (config_.floor_of == MatrixConfig::Length::FloorOf::matrix)
            work.factors = factor.view(-1);
        else
            work.u = u * factor;
    }
    RuleCost cost() const override { return {.work_bytes = work_bytes_}; }

  private:
    // [n, 1, 1], or of rows [n, rows, 1]
    at::Tensor lengths(const at::Tensor& x) const {
        const bool rows = config_.floor_of == MatrixConfig::Length::FloorOf::rows;
        const at::Tensor norms =
            rows ? at::linalg_vector_norm(x, 2, at::IntArrayRef{-1}, /*keepdim=*/true, at::kFloat)
                 : of_matrices(ops::matrix_norms(x));
        return norms.clamp_min(1e-8);
    }

    MatrixConfig::Length config_;
    int64_t work_bytes_;
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("update_floor")>(
    const MatrixRuleInput& input) {
    return std::make_unique<UpdateFloor>(input);
}

}  // namespace speedrun
