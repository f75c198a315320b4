#include "optim/matrix_pipeline.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <utility>

#include "ops/dtype.h"
#include "optim/matrices.h"
#include "optim/parts/table.h"
#include "util/error.h"

namespace speedrun {
namespace {

using Scale = MatrixConfig::Scale;
using ScaleFactor = MatrixConfig::ScaleFactor;

// 0.03 is 0.030029 in bf16.
double rounded(double x, at::ScalarType dtype) {
    return dtype == at::kBFloat16
               ? static_cast<double>(static_cast<float>(at::BFloat16(static_cast<float>(x))))
               : x;
}

// https://kellerjordan.github.io/posts/muon; arXiv 2502.16982 (Moonlight).
double scale_factor(ScaleFactor factor, double rows, double cols) {
    switch (factor) {
        case ScaleFactor::none:
            return 1;
        case ScaleFactor::rows_over_cols:
            return std::sqrt(std::max(1.0, rows / cols));
        case ScaleFactor::longer_side:
            return 0.2 * std::sqrt(std::max(rows, cols));
    }
    throw InternalError("no such scale_factor");
}

at::ScalarType momentum_dtype(const MatrixRuleInput& input) {
    const bool wide = input.config.momentum.dtype == MatrixConfig::Momentum::Type::fp32;
    return wide ? at::kFloat : input.part.grad.scalar_type();
}

// The numbers of `muls` for each matrix, in turn: [n], fp32; undefined where there are none.
at::Tensor in_turn(const std::vector<double>& muls, int64_t matrices, at::Device device) {
    if (muls.empty()) return {};
    std::vector<float> of_each;
    for (int64_t i = 0; i < matrices; ++i)
        of_each.push_back(static_cast<float>(muls[static_cast<size_t>(i) % muls.size()]));
    return at::tensor(of_each, at::kFloat).to(device);
}

template <size_t... indices>
std::vector<std::unique_ptr<PipelinePart>> parts_of(const MatrixRuleInput& input,
                                                    std::index_sequence<indices...>) {
    std::vector<std::unique_ptr<PipelinePart>> parts;
    const auto add = [&](const PipelinePartRow& row, auto make) {
        if (row.there(input.config)) parts.push_back(make(input));
    };
    (add(pipeline_parts[indices], make_pipeline_part<indices>), ...);
    return parts;
}

}  // namespace

MatrixPipeline::MatrixPipeline(const MatrixRuleInput& input)
    : config_(input.config),
      row_(input.row),
      dtype_(input.part.value.scalar_type()),
      parts_(parts_of(input, std::make_index_sequence<pipeline_parts.size()>())),
      reads_gradient_(std::ranges::any_of(parts_, &PipelinePart::reads_gradient)),
      lr_muls_(in_turn(row_.per_matrix_lr_mul, row_.matrix_view[0], input.part.value.device())) {
    if (config_.momentum.form != MatrixConfig::Momentum::Form::none)
        momentum_ = at::zeros_like(input.part.grad, momentum_dtype(input));
    if (input.part.config.master == ParamConfig::Master::mantissa && dtype_ == at::kBFloat16) {
        dtype_ = at::kFloat;
        mantissa_ = at::zeros_like(input.part.value, at::kShort);
    }
}

at::ScalarType MatrixPipeline::update_dtype() const {
    const bool wide = std::ranges::any_of(parts_, &PipelinePart::reads_fp32);
    return wide ? at::kFloat : scalar_type(config_.orthogonalize.dtype);
}

ops::MatrixStep MatrixPipeline::numbers(const RuleStep& step) const {
    const auto& [matrices, rows, cols] = row_.matrix_view;
    ops::MatrixStep numbers = plain_step(config_, row_, step.lr_scale);
    numbers.lr = rounded(numbers.lr.value, dtype_);
    numbers.decay = rounded(numbers.decay.value, dtype_);
    numbers.moments = pipeline_part::has_line_moments(config_);
    numbers.beta2 = config_.beta2;
    numbers.eps = config_.eps;
    numbers.eps_form = config_.eps_form;
    if (config_.bias_correction)
        numbers.correction = 1 - std::pow(config_.beta2, static_cast<double>(step.t));
    numbers.var_reduce_dim = row_.var_reduce_dim;
    numbers.scale = numbers.moments ? config_.scale : Scale::none;
    numbers.factor = scale_factor(config_.scale_factor, static_cast<double>(rows), static_cast<double>(cols));
    return numbers;
}

// momentum, then lr, decay and correction of a ops::MatrixStep, then those of the parts.
std::vector<double> MatrixPipeline::step_numbers(const RuleStep& step) const {
    if (!std::ranges::all_of(parts_, &PipelinePart::alike)) return {};
    const ops::MatrixStep numbers = this->numbers(step);
    std::vector<double> all{step.momentum, numbers.lr.value, numbers.decay.value, numbers.correction.value};
    for (const auto& part : parts_) std::ranges::copy(part->step_numbers(step), std::back_inserter(all));
    return all;
}

void MatrixPipeline::step(Parameter& part, const RuleStep& step) {
    ops::MatrixStep numbers = this->numbers(step);
    ops::StepNumber mu = step.momentum;
    const std::vector<double> varying = step_numbers(step);
    size_t next = 0;
    const auto number = [&](const ops::StepNumber& own) {
        return varying.empty() ? own : step.number(varying, next++);
    };
    mu = number(mu);
    numbers.lr = number(numbers.lr);
    numbers.decay = number(numbers.decay);
    numbers.correction = number(numbers.correction);
    std::vector<PartStep> steps;
    for (const auto& one : parts_) {
        steps.push_back({step.t, step.run_step, {}});
        for (const double own : one->step_numbers(step)) steps.back().numbers.push_back(number(own));
    }
    const Matrices all(part, row_);
    const auto viewed = [&](const at::Tensor& x) { return x.defined() ? x.view(row_.matrix_view) : x; };
    const at::Tensor momentum = viewed(momentum_), mantissa = viewed(mantissa_);
    int64_t begin = 0;
    all.for_each_group([&](const auto& of) {
        PipelineWork work;
        work.begin = begin;
        work.value = of(all.value);
        work.step = numbers;
        work.step.lr_muls = of(lr_muls_);
        work.step.mantissa = of(mantissa);
        step_group(work, of(all.grad), of(momentum), of(all.copy), mu, steps);
        begin += work.value.size(0);
    });
}

at::Tensor MatrixPipeline::update_of(const at::Tensor& grad, const at::Tensor& momentum,
                                     const ops::StepNumber& mu) const {
    if (!momentum.defined()) {
        const at::Tensor u = grad.to(update_dtype(), false, /*copy=*/true);
        grad.zero_();
        return u;
    }
    const at::Tensor u = at::empty(grad.sizes(), grad.options().dtype(update_dtype()));
    ops::momentum_update(grad, momentum, u, mu, config_.momentum);
    return u;
}

void MatrixPipeline::step_group(PipelineWork& work, const at::Tensor& grad, const at::Tensor& momentum,
                                const at::Tensor& copy, const ops::StepNumber& mu,
                                const std::vector<PartStep>& steps) {
    const auto each = [&](auto what) {
        for (size_t i = 0; i < parts_.size(); ++i) (*parts_[i].*what)(work, steps[i]);
    };
    work.grad = grad;
    each(&PipelinePart::prepare);
    work.grad = reads_gradient_ ? grad.to(update_dtype(), false, /*copy=*/true) : at::Tensor();
    work.turn_to(update_of(grad, momentum, mu));
    each(&PipelinePart::apply);
    if (work.rests) return;
    if (!work.written)
        ops::apply_matrix_update(work.u, work.factors, work.step.moments ? work.second_moment : at::Tensor(),
                                 work.value, copy, work.step);
    each(&PipelinePart::finish);
    if (copy.defined() && (work.written || work.rescaled)) copy.copy_(work.value);
}

std::vector<StateTensor> MatrixPipeline::state() const {
    std::vector<StateTensor> all;
    if (momentum_.defined()) all.push_back({"momentum", momentum_});
    for (const auto& part : parts_) std::ranges::copy(part->state(), std::back_inserter(all));
    if (mantissa_.defined()) all.push_back({"mantissa", mantissa_});
    return all;
}

RuleCost MatrixPipeline::cost(bool fused) const {
    const auto& [matrices, rows, cols] = row_.matrix_view;
    const int64_t size = rows * cols, wide = 4, item = update_dtype() == at::kBFloat16 ? 2 : wide;
    // The update widened, divided and rounded; ATen's apply_matrix_update keeps X, its square, u, the decay
    // and its mask, and the new value, in fp32.
    const int64_t widened = item == wide ? wide * size : (2 * wide + item) * size;
    const int64_t applying = fused ? item * size : 6 * wide * size;
    int64_t work = std::max(widened, applying);
    double flop = 0;
    for (const auto& part : parts_) {
        const RuleCost own = part->cost();
        flop += own.flop;
        work = std::max(work, own.work_bytes);
    }
    const int64_t kept = reads_gradient_ ? 2 * item * size : item * size;
    const int64_t group = std::min(matrices, ops::matrix_group(rows, cols));
    return {static_cast<double>(matrices) * flop, group * (kept + work)};
}

}  // namespace speedrun
