// Adam's direction, arXiv 1412.6980, of the gradient (momentum.form none):
//   m <- beta1 m + (1 - beta1) u; v <- beta2 v + (1 - beta2) u^2
//   u <- m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
#include <ATen/ATen.h>

#include <cmath>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

class AdamDirection final : public PipelinePart {
  public:
    explicit AdamDirection(const MatrixRuleInput& input)
        : config_(input.config.direction),
          exp_avg_(at::zeros(input.row.matrix_view, input.part.value.options().dtype(at::kFloat))),
          exp_avg_sq_(at::zeros_like(exp_avg_)) {}

    void apply(PipelineWork& work, const PartStep& step) override {
        const at::Tensor m = work.of(exp_avg_), v = work.of(exp_avg_sq_);
        m.lerp_(work.u, 1 - config_.beta1);
        v.mul_(config_.beta2).addcmul_(work.u, work.u, 1 - config_.beta2);
        work.turn_to(times(m, step.numbers[0]) / times(v, step.numbers[1]).sqrt_().add_(config_.eps));
    }
    // What corrects the moments, as factors.
    std::vector<double> step_numbers(const RuleStep& step) const override {
        const auto t = static_cast<double>(step.t);
        return {1 / (1 - std::pow(config_.beta1, t)), 1 / (1 - std::pow(config_.beta2, t))};
    }
    bool reads_fp32() const override { return true; }
    std::vector<StateTensor> state() const override {
        return {{"exp_avg", exp_avg_}, {"exp_avg_sq", exp_avg_sq_}};
    }
    RuleCost cost() const override { return {.work_bytes = 3 * 4 * exp_avg_.size(1) * exp_avg_.size(2)}; }

  private:
    MatrixConfig::Direction config_;
    at::Tensor exp_avg_, exp_avg_sq_;  // [n, rows, cols], fp32
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("adam")>(const MatrixRuleInput& input) {
    return std::make_unique<AdamDirection>(input);
}

}  // namespace speedrun
