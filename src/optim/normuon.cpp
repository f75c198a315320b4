#include "optim/normuon.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "ops/cpu/rows.h"
#include "optim/matrix_kernels.h"
#include "optim/orthogonalize.h"
#include "util/error.h"

namespace speedrun {
namespace {

using Decay = NorMuonConfig::Decay;
using Scale = NorMuonConfig::Scale;
using SecondMoment = NorMuonConfig::SecondMoment;

// The reference holds these numbers in tensors of the parameter's dtype: 0.03 is 0.030029 for a bf16
// parameter.
double rounded(double x, at::ScalarType dtype) {
    return dtype == at::kBFloat16
               ? static_cast<double>(static_cast<float>(at::BFloat16(static_cast<float>(x))))
               : x;
}

}  // namespace

int64_t matrix_group(int64_t rows, int64_t cols) {
    constexpr int64_t kElements = int64_t{1} << 22;
    const int64_t threads = at::get_num_threads();
    const int64_t fit = kElements / std::max<int64_t>(1, rows * cols);
    return std::max(threads, fit / threads * threads);
}

void reference::momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update,
                                double mu, bool nesterov) {
    momentum.lerp_(grad, 1 - mu);
    const at::Tensor u = nesterov ? at::lerp(grad, momentum, mu) : momentum;
    update.copy_(u.view(update.sizes()));
    grad.zero_();
}

void reference::apply_matrix_update(const at::Tensor& update, const at::Tensor& second_moment,
                                    const at::Tensor& value, const at::Tensor& copy, const MatrixStep& step) {
    const auto norm = [](const at::Tensor& x) {
        return at::linalg_vector_norm(x, 2, at::IntArrayRef{-2, -1}, true);
    };
    const at::Tensor x = update.scalar_type() == at::kDouble ? update : update.to(at::kFloat);
    at::Tensor u = x;
    if (step.second_moment == SecondMoment::vector) {
        const at::Tensor mean = x.square().mean(step.var_reduce_dim, /*keepdim=*/true);
        second_moment.copy_(second_moment.to(x.scalar_type()).lerp(mean, 1 - step.beta2));
        u = x * second_moment.to(x.scalar_type()).clamp_min(1e-10).rsqrt();
        if (step.scale == Scale::restore_norm) u = u * (norm(x) / norm(u).clamp_min(1e-10));
    }
    at::Tensor p = value.to(x.scalar_type());
    if (step.decay_kind == Decay::cautious) u = u + step.decay * p * (u * p).ge(0);
    if (step.decay_kind == Decay::decoupled) p = p * (1 - step.decay);
    value.copy_(p - step.lr * u);
    if (copy.defined()) copy.copy_(value);
}

void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update, double mu,
                     bool nesterov) {
    const bool fused = ops::cpu::fused(grad) && ops::cpu::fused(update);
    return fused ? kernels::momentum_update(grad, momentum, update, mu, nesterov)
                 : reference::momentum_update(grad, momentum, update, mu, nesterov);
}

void apply_matrix_update(const at::Tensor& update, const at::Tensor& second_moment, const at::Tensor& value,
                         const at::Tensor& copy, const MatrixStep& step) {
    const bool fused = ops::cpu::fused(update) && ops::cpu::fused(value);
    return fused ? kernels::apply_matrix_update(update, second_moment, value, copy, step)
                 : reference::apply_matrix_update(update, second_moment, value, copy, step);
}

NorMuon::NorMuon(const NorMuonConfig& config, const OptimParamConfig& row, const Parameter& parameter)
    : config_(config), row_(row), momentum_(at::zeros_like(parameter.grad)) {
    const auto& [matrices, rows, cols] = row.matrix_view;
    check(matrices * rows * cols == parameter.value.numel(),
          row.param + ": matrix_view has another number of elements");
    check(row.var_reduce_dim == -1 || row.var_reduce_dim == -2,
          row.param + ": var_reduce_dim is neither -1 nor -2");
    if (config.second_moment == SecondMoment::none) return;
    const bool over_rows = row.var_reduce_dim == -2;
    second_moment_ =
        at::zeros({matrices, over_rows ? 1 : rows, over_rows ? cols : 1}, parameter.value.options());
}

MatrixStep NorMuon::numbers(at::ScalarType dtype, double lr_scale) const {
    const double lr = config_.lr * lr_scale;
    return {.lr = rounded(lr * row_.lr_mul, dtype),
            .decay = rounded(lr * config_.weight_decay * row_.wd_mul, dtype),
            .beta2 = config_.beta2,
            .var_reduce_dim = row_.var_reduce_dim,
            .second_moment = config_.second_moment,
            .scale = config_.scale,
            .decay_kind = config_.decay};
}

void NorMuon::step(Parameter& parameter, double lr_scale, double mu) {
    const MatrixStep step = numbers(parameter.value.scalar_type(), lr_scale);
    const at::Tensor grad = parameter.grad.view(row_.matrix_view),
                     momentum = momentum_.view(row_.matrix_view);
    const at::Tensor value = parameter.value.view(row_.matrix_view);
    const bool copied = !parameter.used.is_same(parameter.value);
    const at::Tensor copy = copied ? parameter.used.view(row_.matrix_view) : at::Tensor();
    const int64_t count = value.size(0), group = matrix_group(value.size(1), value.size(2));
    for (int64_t begin = 0; begin < count; begin += group) {
        const auto part = [&](const at::Tensor& x) {
            return x.defined() ? x.narrow(0, begin, std::min(group, count - begin)) : x;
        };
        const at::Tensor u =
            at::empty(part(value).sizes(), value.options().dtype(scalar_type(config_.orthogonalize.dtype)));
        momentum_update(part(grad), part(momentum), u, mu, config_.nesterov);
        const at::Tensor x = orthogonalize(u, config_.orthogonalize);
        apply_matrix_update(x, part(second_moment_), part(value), part(copy), step);
    }
}

}  // namespace speedrun
