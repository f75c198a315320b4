// Cautious weight decay (arXiv 2510.12402) after everything else that a step does: p <- p - c p where u p >
// 0, with the p from before the step.
#include <ATen/ATen.h>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

class DecayLast final : public PipelinePart {
  public:
    explicit DecayLast(const MatrixRuleInput& input) {
        const auto& [matrices, rows, cols] = input.row.matrix_view;
        work_bytes_ = 3 * 4 * rows * cols;
    }

    void apply(PipelineWork& work, const PartStep&) override {
        shrinks_ = (work.settled() * work.value).gt(0);
    }

    void finish(PipelineWork& work, const PartStep&) override {
        work.value.sub_(times(work.value * shrinks_, work.step.decay));
        work.rescaled = true;
        shrinks_.reset();
    }
    RuleCost cost() const override { return {.work_bytes = work_bytes_}; }

  private:
    int64_t work_bytes_;
    at::Tensor shrinks_;  // of each entry
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("decay_last")>(
    const MatrixRuleInput& input) {
    return std::make_unique<DecayLast>(input);
}

}  // namespace speedrun
