#include "optim/matrix_update.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "ops/cpu/rows.h"
#include "ops/cuda/fused.h"
#include "optim/matrix_kernels.h"
#include "util/error.h"

namespace speedrun {

using Form = MatrixConfig::Momentum::Form;

int64_t matrix_group(int64_t rows, int64_t cols) {
    constexpr int64_t kElements = int64_t{1} << 22;
    const int64_t threads = at::get_num_threads();
    const int64_t fit = kElements / std::max<int64_t>(1, rows * cols);
    return std::max(threads, fit / threads * threads);
}

void reference::momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update,
                                double mu, const MatrixConfig::Momentum& config) {
    at::Tensor u = momentum;
    if (config.form == Form::lerp) {
        momentum.lerp_(grad, 1 - mu);
        if (config.nesterov) u = at::lerp(grad, momentum, mu);
    } else {
        // ATen rounds the factor of a sum to the tensors' dtype.
        const auto type = grad.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
        const auto ahead = [&] {
            return at::add(grad.to(type), momentum.to(type), mu).to(grad.scalar_type());
        };
        momentum.copy_(ahead());
        if (config.nesterov) u = ahead();
    }
    update.copy_(u.view(update.sizes()));
    grad.zero_();
}

void reference::apply_matrix_update(const at::Tensor& update, const at::Tensor& factors,
                                    const at::Tensor& second_moment, const at::Tensor& value,
                                    const at::Tensor& copy, const MatrixStep& step) {
    using Scale = MatrixConfig::Scale;
    const auto norm = [](const at::Tensor& x) {
        return at::linalg_vector_norm(x, 2, at::IntArrayRef{-2, -1}, true);
    };
    const at::Tensor x = update.scalar_type() == at::kDouble ? update : update.to(at::kFloat);
    at::Tensor u = x;
    if (step.moments) {
        const at::Tensor mean = x.square().mean(step.var_reduce_dim, /*keepdim=*/true);
        second_moment.copy_(second_moment.to(x.scalar_type()).lerp(mean, 1 - step.beta2));
        const at::Tensor v = second_moment.to(x.scalar_type()) / step.correction.now();
        u = step.eps_form == MatrixConfig::EpsForm::clamp ? x * v.clamp_min(step.eps).rsqrt()
                                                          : x / (v.sqrt() + step.eps);
        const double size = std::sqrt(static_cast<double>(x.size(-2) * x.size(-1)));
        if (step.scale == Scale::restore_norm) u = u * (norm(x) / norm(u).clamp_min(1e-10));
        if (step.scale == Scale::paper) u = u * (0.2 * size / norm(u).clamp_min(1e-10));
    }
    if (step.factor != 1) u = u * step.factor;
    if (factors.defined()) u = u * factors.view({-1, 1, 1});
    at::Tensor p = value.to(x.scalar_type());
    if (step.decay_kind == MatrixConfig::Decay::cautious) u = u + step.decay.now() * p * (u * p).ge(0);
    if (step.decay_kind == MatrixConfig::Decay::decoupled) p = p * (1 - step.decay.now());
    value.copy_(p - step.lr.now() * u);
    if (copy.defined()) copy.copy_(value);
}

namespace {

cuda::MatrixUpdate of_kernel(const MatrixStep& step) {
    using Raw = cuda::MatrixUpdate;
    using Scale = MatrixConfig::Scale;
    using Decay = MatrixConfig::Decay;
    Raw numbers;
    numbers.of_rows = step.var_reduce_dim == -1;
    numbers.lr = step.lr.number();
    numbers.decay = step.decay.number();
    numbers.beta2 = static_cast<float>(step.beta2);
    numbers.eps = static_cast<float>(step.eps);
    numbers.correction = step.correction.number();
    numbers.factor = static_cast<float>(step.factor);
    numbers.eps_added = step.eps_form == MatrixConfig::EpsForm::add;
    numbers.scale = step.scale == Scale::restore_norm ? Raw::Scale::restore_norm
                    : step.scale == Scale::paper      ? Raw::Scale::paper
                                                      : Raw::Scale::none;
    numbers.decay_kind = step.decay_kind == Decay::cautious    ? Raw::Decay::cautious
                         : step.decay_kind == Decay::decoupled ? Raw::Decay::decoupled
                                                               : Raw::Decay::none;
    return numbers;
}

}  // namespace

void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update,
                     const StepNumber& mu, const MatrixConfig::Momentum& config) {
    if (ops::cuda::fused(grad) && ops::cuda::fused(update))
        return ops::cuda::on_device_of(grad).momentum_update(grad, momentum, update, mu.number(),
                                                             config.form == Form::lerp, config.nesterov);
    const bool fused = ops::cpu::fused(grad) && ops::cpu::fused(update);
    return fused ? kernels::momentum_update(grad, momentum, update, mu.now(), config)
                 : reference::momentum_update(grad, momentum, update, mu.now(), config);
}

void apply_matrix_update(const at::Tensor& update, const at::Tensor& factors, const at::Tensor& second_moment,
                         const at::Tensor& value, const at::Tensor& copy, const MatrixStep& step) {
    if (ops::cuda::fused(update) && ops::cuda::fused(value))
        return ops::cuda::on_device_of(update).matrix_update(
            update, factors, step.moments ? second_moment : at::Tensor(), value, copy, of_kernel(step));
    const bool fused = ops::cpu::fused(update) && ops::cpu::fused(value);
    return fused ? kernels::apply_matrix_update(update, factors, second_moment, value, copy, step)
                 : reference::apply_matrix_update(update, factors, second_moment, value, copy, step);
}

MatrixStep plain_step(const MatrixConfig& config, const OptimParamConfig& row, double lr_scale) {
    using Kind = MatrixConfig::DecayCoefficient;
    const double lr = config.lr * lr_scale;
    const double coefficient = config.decay_coefficient == Kind::lr         ? lr
                               : config.decay_coefficient == Kind::schedule ? lr_scale
                                                                            : 1;
    return {.lr = lr * row.lr_mul,
            .decay = coefficient * config.weight_decay * row.wd_mul,
            .decay_kind = config.decay};
}

at::Tensor matrix_norms(const at::Tensor& x) {
    return at::linalg_vector_norm(x, 2, at::IntArrayRef{-2, -1}, false, at::kFloat);
}

Matrices::Matrices(const Parameter& part, const OptimParamConfig& row)
    : value(part.value.view(row.matrix_view)), grad(part.grad.view(row.matrix_view)) {
    if (!part.used.is_same(part.value)) copy = part.used.view(row.matrix_view);
}

}  // namespace speedrun
