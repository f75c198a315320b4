// MomMuon of MuonVariants: see optim/running_root.h.
#include "optim/running_root.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "optim/orthogonality.h"
#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

class RunningRoot final : public PipelinePart {
  public:
    explicit RunningRoot(const MatrixRuleInput& input) : config_(input.config), row_(input.row) {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const int64_t k = std::min(rows, cols);
        root_ = at::zeros({matrices, k, k}, input.part.value.options().dtype(at::kFloat));
    }

    void apply(PipelineWork& work, const PartStep& step) override {
        if (work.begin == 0) look_for_roots(step.t);
        const bool due = (step.t - 1) % config_.preconditioner.every_n_steps == 0;
        if (due || !roots_exist_) update_running_root(work.u, work.of(root_), config_, due);
        work.u = apply_running_root(work.u, work.of(root_), config_);
    }
    bool alike() const override { return false; }
    std::vector<StateTensor> state() const override { return {{"preconditioner", root_}}; }

    RuleCost cost() const override {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const int64_t k = std::min(rows, cols), size = rows * cols, item = 4;
        const double apply = 2 * static_cast<double>(k * size),
                     anew = orthogonalize_flop(rows, cols, config_.orthogonalize) - apply;
        return {apply + anew / static_cast<double>(config_.preconditioner.every_n_steps),
                3 * item * size + 6 * item * k * k};
    }

  private:
    void look_for_roots(int64_t t) {
        if (t == 1) roots_exist_ = false;
        if (t > 1 && !roots_exist_) roots_exist_ = ops::matrix_norms(root_).ne(0).all().item<bool>();
    }

    MatrixConfig config_;
    OptimParamConfig row_;
    at::Tensor root_;           // [n, k, k], k = min(rows, cols), fp32
    bool roots_exist_ = false;  // every matrix has one: known since this or an earlier step
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("running_root")>(
    const MatrixRuleInput& input) {
    return std::make_unique<RunningRoot>(input);
}

}  // namespace speedrun
