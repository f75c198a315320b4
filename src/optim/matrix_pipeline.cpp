#include "optim/matrix_pipeline.h"
#include "optim/matrices.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "ops/dtype.h"
#include "ops/optim/orthogonalize.h"
#include "optim/orthogonality.h"
#include "optim/running_root.h"
#include "util/error.h"

namespace speedrun {
namespace {

using Method = MatrixConfig::Orthogonalize::Method;
using Scale = MatrixConfig::Scale;
using ScaleFactor = MatrixConfig::ScaleFactor;
using SecondMoment = MatrixConfig::SecondMoment;
using Signs = MatrixConfig::Signs;

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

}  // namespace

void take_signs(const at::Tensor& x, const at::Tensor& of) {
    x.abs_().mul_(of.sign());
}

at::Tensor gradient_norm_factors(const at::Tensor& x, const at::Tensor& u, const at::Tensor& moment,
                                 const ops::MatrixStep& step) {
    const at::Tensor n = ops::matrix_norms(u), s = moment.view(-1);
    s.lerp_(n.square(), 1 - step.beta2);
    const at::Tensor root = (s / step.correction.now()).sqrt();
    const auto divided = [&](const at::Tensor& a, const at::Tensor& b) {
        return step.eps_form == MatrixConfig::EpsForm::add ? a / (b + step.eps)
                                                           : a / b.clamp_min(std::sqrt(step.eps));
    };
    return divided(divided(n, ops::matrix_norms(x)), root);
}

MatrixPipeline::MatrixPipeline(const MatrixRuleInput& input)
    : config_(input.config),
      row_(input.row),
      dtype_(input.part.value.scalar_type()),
      momentum_(at::zeros_like(input.part.grad, momentum_dtype(input))) {
    const auto& [matrices, rows, cols] = row_.matrix_view;
    check(row_.var_reduce_dim == -1 || row_.var_reduce_dim == -2,
          row_.param + ": var_reduce_dim is neither -1 nor -2");
    if (input.part.config.master == ParamConfig::Master::mantissa && dtype_ == at::kBFloat16) {
        dtype_ = at::kFloat;
        mantissa_ = at::zeros_like(input.part.value, at::kShort);
    }
    const auto options = input.part.value.options().dtype(dtype_);
    if (const auto& muls = row_.per_matrix_lr_mul; !muls.empty()) {
        std::vector<float> of_each;
        for (int64_t i = 0; i < matrices; ++i)
            of_each.push_back(static_cast<float>(muls[static_cast<size_t>(i) % muls.size()]));
        lr_muls_ = at::tensor(of_each, at::kFloat).to(options.device());
    }
    const bool over_rows = row_.var_reduce_dim == -2;
    if (moments())
        second_moment_ = at::zeros({matrices, over_rows ? 1 : rows, over_rows ? cols : 1}, options);
    else if (config_.second_moment == SecondMoment::matrix)
        second_moment_ = at::zeros({matrices, 1, 1}, options.dtype(at::kFloat));
    const int64_t k = std::min(rows, cols);
    if (config_.orthogonalize.method == Method::preconditioner)
        preconditioner_ = at::zeros({matrices, k, k}, options.dtype(at::kFloat));
}

bool MatrixPipeline::moments() const {
    return config_.second_moment != SecondMoment::none && config_.second_moment != SecondMoment::matrix;
}

ops::MatrixStep MatrixPipeline::numbers(const RuleStep& step) const {
    const auto& [matrices, rows, cols] = row_.matrix_view;
    ops::MatrixStep numbers = plain_step(config_, row_, step.lr_scale);
    numbers.lr = rounded(numbers.lr.value, dtype_);
    numbers.decay = rounded(numbers.decay.value, dtype_);
    numbers.moments = moments();
    numbers.beta2 = config_.beta2;
    numbers.eps = config_.eps;
    numbers.eps_form = config_.eps_form;
    if (config_.bias_correction)
        numbers.correction = 1 - std::pow(config_.beta2, static_cast<double>(step.t));
    numbers.var_reduce_dim = row_.var_reduce_dim;
    numbers.scale = moments() ? config_.scale : Scale::none;
    numbers.factor = scale_factor(config_.scale_factor, static_cast<double>(rows), static_cast<double>(cols));
    return numbers;
}

at::Tensor MatrixPipeline::orthogonal(const at::Tensor& u, const at::Tensor& preconditioner,
                                      int64_t t) const {
    if (config_.orthogonalize.method == Method::none) return u.clone();
    if (config_.orthogonalize.method != Method::preconditioner)
        return ops::orthogonalize(u, config_.orthogonalize);
    const bool due = (t - 1) % config_.preconditioner.every_n_steps == 0;
    if (due || !roots_exist_) update_running_root(u, preconditioner, config_, due);
    return apply_running_root(u, preconditioner, config_);
}

// Numbers of whole matrices; undefined where there are none. Without a second moment, to restore a norm is to
// leave it.
at::Tensor MatrixPipeline::factors(const at::Tensor& x, const at::Tensor& u, const at::Tensor& second_moment,
                                   const ops::MatrixStep& step) const {
    at::Tensor found;
    if (config_.second_moment == SecondMoment::matrix)
        found = gradient_norm_factors(x, u, second_moment, step);
    if (moments() || config_.scale == Scale::none) return found;
    if (config_.scale == Scale::restore_norm) return {};
    return 0.2 * std::sqrt(static_cast<double>(x.size(1) * x.size(2))) /
           ops::matrix_norms(x).clamp_min(1e-10);
}

// momentum, then lr, decay and correction of a ops::MatrixStep.
std::vector<double> MatrixPipeline::step_numbers(const RuleStep& step) const {
    if (preconditioner_.defined() || config_.second_moment == SecondMoment::matrix) return {};
    const ops::MatrixStep numbers = this->numbers(step);
    return {step.momentum, numbers.lr.value, numbers.decay.value, numbers.correction.value};
}

void MatrixPipeline::step(Parameter& part, const RuleStep& step) {
    ops::MatrixStep numbers = this->numbers(step);
    ops::StepNumber momentum_now = step.momentum;
    if (const std::vector<double> varying = step_numbers(step); !varying.empty()) {
        momentum_now = step.number(varying, 0);
        numbers.lr = step.number(varying, 1);
        numbers.decay = step.number(varying, 2);
        numbers.correction = step.number(varying, 3);
    }
    const Matrices all(part, row_);
    const at::Tensor momentum = momentum_.view(row_.matrix_view);
    const at::Tensor mantissa = mantissa_.defined() ? mantissa_.view(row_.matrix_view) : mantissa_;
    const auto dtype = scalar_type(config_.orthogonalize.dtype);
    if (step.t == 1) roots_exist_ = false;
    all.for_each_group([&](const auto& of) {
        const at::Tensor u = at::empty(of(all.value).sizes(), all.value.options().dtype(dtype));
        const at::Tensor signs = config_.signs == Signs::gradient ? of(all.grad).to(dtype, false, true) : u;
        ops::momentum_update(of(all.grad), of(momentum), u, momentum_now, config_.momentum);
        const at::Tensor x = orthogonal(u, of(preconditioner_), step.t);
        if (config_.signs != Signs::keep) take_signs(x, signs);
        const at::Tensor second_moment = of(second_moment_);
        numbers.lr_muls = of(lr_muls_);
        numbers.mantissa = of(mantissa);
        ops::apply_matrix_update(x, factors(x, u, second_moment, numbers),
                                 moments() ? second_moment : at::Tensor(), of(all.value), of(all.copy),
                                 numbers);
    });
    if (preconditioner_.defined() && !roots_exist_)
        roots_exist_ = ops::matrix_norms(preconditioner_).ne(0).all().item<bool>();
}

std::vector<StateTensor> MatrixPipeline::state() const {
    std::vector<StateTensor> parts{{"momentum", momentum_}};
    if (second_moment_.defined()) parts.push_back({"second_moment", second_moment_});
    if (preconditioner_.defined()) parts.push_back({"preconditioner", preconditioner_});
    if (mantissa_.defined()) parts.push_back({"mantissa", mantissa_});
    return parts;
}

RuleCost MatrixPipeline::cost(bool fused) const {
    const auto& [matrices, rows, cols] = row_.matrix_view;
    const int64_t k = std::min(rows, cols), size = rows * cols, gram = k * k, wide = 4;
    const int64_t item = config_.orthogonalize.dtype == Dtype::bf16 ? 2 : wide;
    // The update; then either it widened, divided and rounded, or the iterate, its successor, the Gram matrix
    // and the polynomial, and for tall matrices the result turned back.
    const int64_t widened = item == wide ? wide * size : (2 * wide + item) * size;
    int64_t iterating = 2 * item * size + 2 * item * gram + (rows > cols ? item * size : 0);
    double flop = orthogonalize_flop(rows, cols, config_.orthogonalize);
    if (config_.orthogonalize.method == Method::preconditioner) {
        iterating = 3 * wide * size + 6 * wide * gram;
        const double apply = 2 * static_cast<double>(k * size);
        flop = apply + (flop - apply) / static_cast<double>(config_.preconditioner.every_n_steps);
    }
    if (config_.orthogonalize.method == Method::none) iterating = item * size;
    // ATen's apply_matrix_update keeps X, its square, u, the decay and its mask, and the new value, in fp32.
    const int64_t applying = fused ? item * size : 6 * wide * size;
    const int64_t kept = config_.signs == Signs::gradient ? 2 * item * size : item * size;
    const int64_t group = std::min(matrices, ops::matrix_group(rows, cols));
    return {static_cast<double>(matrices) * flop, group * (kept + std::max({widened, iterating, applying}))};
}

}  // namespace speedrun
