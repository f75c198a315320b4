// Muon^2: v <- beta2 v + (1 - beta2) g^2 of the raw gradient; u <- u / (sqrt(v) + eps).
#include <ATen/ATen.h>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

class Entries final : public PipelinePart {
  public:
    explicit Entries(const MatrixRuleInput& input)
        : config_(input.config.direction),
          exp_avg_sq_(at::zeros(input.row.matrix_view, input.part.value.options().dtype(at::kFloat))) {}

    void apply(PipelineWork& work, const PartStep&) override {
        const at::Tensor v = work.of(exp_avg_sq_);
        v.mul_(config_.beta2).addcmul_(work.grad, work.grad, 1 - config_.beta2);
        work.turn_to(work.u / v.sqrt().add_(config_.eps));
    }
    bool reads_gradient() const override { return true; }
    bool reads_fp32() const override { return true; }
    std::vector<StateTensor> state() const override { return {{"exp_avg_sq", exp_avg_sq_}}; }
    RuleCost cost() const override {
        return {.work_bytes = 2 * 4 * exp_avg_sq_.size(1) * exp_avg_sq_.size(2)};
    }

  private:
    MatrixConfig::Direction config_;
    at::Tensor exp_avg_sq_;  // [n, rows, cols], fp32
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("entries")>(
    const MatrixRuleInput& input) {
    return std::make_unique<Entries>(input);
}

}  // namespace speedrun
