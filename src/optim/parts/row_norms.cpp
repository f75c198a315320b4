// Muown, result 23 of track 3: each row of p as a length g and a direction, p_i = g_i v_i / |v_i|, where v is
// not kept, but how long it counts as, a. At first g and a are |p_i|, of a zero row sqrt(0.33).
//   e = p / g; v = a e; h_i = <grad_i, e_i>; grad <- (g / a) (grad - e h), which the momentum takes
//   v <- v - lr * factor * X (X made of it, as the config says); g by Adam from h; p = g v / max(|v|, 1e-12)
//   a <- its first value + (target - that) min((t - 1) / (steps - 1), 1)^power
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

constexpr double kLeastRow = 1e-12;
constexpr double kLengthOfZeros = 0.5744562646538029;  // sqrt(0.33)

at::Tensor row_lengths(const at::Tensor& x) {
    return at::linalg_vector_norm(x, 2, at::IntArrayRef{-1}, /*keepdim=*/true, at::kFloat);
}

class RowNormsPart final : public PipelinePart {
  public:
    explicit RowNormsPart(const MatrixRuleInput& input) : config_(*input.config.row_norms) {
        const auto& [matrices, rows, cols] = input.row.matrix_view;
        const auto options = input.part.value.options().dtype(at::kFloat);
        for (at::Tensor* of : {&length_, &counts_as_, &first_, &exp_avg_, &exp_avg_sq_})
            *of = at::zeros({matrices, rows, 1}, options);
        const auto& muls = input.row.per_matrix_norm_mul;
        std::vector<double> targets;
        for (int64_t i = 0; i < matrices; ++i)
            targets.push_back(config_.target *
                              (muls.empty() ? 1 : muls[static_cast<size_t>(i) % muls.size()]));
        targets_ = at::tensor(targets, at::kFloat).view({-1, 1, 1}).to(options.device());
        work_bytes_ = 4 * 4 * rows * cols;
    }

    void prepare(PipelineWork& work, const PartStep& step) override {
        begin(work);
        const at::Tensor g = work.of(length_), a = work.of(counts_as_);
        const at::Tensor e = work.value / g, grad = work.grad.to(at::kFloat);
        const at::Tensor along = (grad * e).sum(-1, /*keepdim=*/true);
        direction_ = e * a;
        work.grad.copy_((grad - e * along) * (g / a));
        const at::Tensor m = work.of(exp_avg_), v = work.of(exp_avg_sq_);
        m.lerp_(along, 1 - config_.beta1);
        v.mul_(config_.beta2).addcmul_(along, along, 1 - config_.beta2);
        const at::Tensor root = times(v, step.numbers[1]).sqrt_().add_(config_.eps);
        g.sub_(stepped(work, times(m, step.numbers[0]) / root));
        a.copy_(work.of(first_) + times(work.of(targets_) - work.of(first_), step.numbers[2]));
    }

    void apply(PipelineWork& work, const PartStep&) override {
        const at::Tensor v = direction_ - stepped(work, work.settled());
        work.value.copy_(work.of(length_) * (v / row_lengths(v).clamp_min(kLeastRow)));
        work.written = true;
        direction_.reset();
    }

    // What corrects Adam's moments, as factors, and the share of the way to the target after this step.
    std::vector<double> step_numbers(const RuleStep& step) const override {
        const auto t = static_cast<double>(step.t);
        const double gone =
            config_.steps <= 1 ? 1 : std::min((t - 1) / static_cast<double>(config_.steps - 1), 1.0);
        return {1 / (1 - std::pow(config_.beta1, t)), 1 / (1 - std::pow(config_.beta2, t)),
                std::pow(gone, config_.power)};
    }
    std::vector<StateTensor> state() const override {
        return {{"row_length", length_},
                {"row_counts_as", counts_as_},
                {"row_counted_as", first_},
                {"row_exp_avg", exp_avg_},
                {"row_exp_avg_sq", exp_avg_sq_}};
    }
    RuleCost cost() const override { return {.work_bytes = work_bytes_}; }

  private:
    // A rule is new where nothing counts as anything; steps that are recorded cannot ask which one they are.
    void begin(const PipelineWork& work) const {
        const at::Tensor lengths = row_lengths(work.value), is_new = work.of(first_).eq(0);
        const at::Tensor found = at::where(lengths <= kLeastRow, kLengthOfZeros, lengths);
        for (const at::Tensor& of : {length_, counts_as_, first_})
            work.of(of).copy_(at::where(is_new, found, work.of(of)));
    }

    static at::Tensor stepped(const PipelineWork& work, const at::Tensor& x) {
        const at::Tensor u = times(x, work.step.lr);
        return work.step.lr_muls.defined() ? u * of_matrices(work.step.lr_muls) : u;
    }

    RowNorms config_;
    int64_t work_bytes_;
    at::Tensor length_, counts_as_, first_;  // g, a and its first value, [n, rows, 1], fp32
    at::Tensor exp_avg_, exp_avg_sq_;        // of h
    at::Tensor targets_;                     // [n, 1, 1], fp32
    at::Tensor direction_;                   // v
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("row_norms")>(
    const MatrixRuleInput& input) {
    return std::make_unique<RowNormsPart>(input);
}

}  // namespace speedrun
