#include "ops/optim/matrix_update.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/optim/matrix_kernels.h"
#include "util/error.h"

namespace speedrun::ops {

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
    const at::Tensor g = grad.to(momentum.scalar_type());
    if (config.form == Form::lerp) {
        momentum.lerp_(g, 1 - mu);
        if (config.nesterov) u = at::lerp(g, momentum, mu);
    } else {
        // ATen rounds the factor of a sum to the tensors' dtype.
        const auto type = g.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
        const auto ahead = [&] { return at::add(g.to(type), momentum.to(type), mu).to(g.scalar_type()); };
        momentum.copy_(ahead());
        if (config.nesterov) u = ahead();
    }
    update.copy_(u.view(update.sizes()));
    grad.zero_();
}

namespace {

// fp32 numbers of their upper halves, bf16, and their lower ones, int16.
at::Tensor joined(const at::Tensor& upper, const at::Tensor& lower) {
    const at::Tensor bits = upper.contiguous()
                                .view(at::kShort)
                                .to(at::kInt)
                                .mul(1 << 16)
                                .add(lower.to(at::kInt).bitwise_and(0xffff));
    return bits.view(at::kFloat);
}

void split(const at::Tensor& whole, const at::Tensor& upper, const at::Tensor& lower) {
    const at::Tensor bits = whole.contiguous().view(at::kInt), low = bits.bitwise_and(0xffff);
    lower.copy_(low.to(at::kShort));
    upper.view(at::kShort).copy_(bits.bitwise_right_shift(16).to(at::kShort));
}

// Without the host's waiting for a number that lies on a device.
at::Tensor over(const at::Tensor& x, const StepNumber& divisor) {
    return divisor.place.defined() ? x / divisor.place.view(at::IntArrayRef{}) : x / divisor.value;
}

}  // namespace

at::Tensor reference::scaled_update(const at::Tensor& update, const at::Tensor& factors,
                                    const at::Tensor& second_moment, const MatrixStep& step) {
    using Scale = MatrixConfig::Scale;
    const auto norm = [](const at::Tensor& x) {
        return at::linalg_vector_norm(x, 2, at::IntArrayRef{-2, -1}, true);
    };
    const at::Tensor x = update.scalar_type() == at::kDouble ? update : update.to(at::kFloat);
    at::Tensor u = x;
    if (step.moments) {
        const at::Tensor mean = x.square().mean(step.var_reduce_dim, /*keepdim=*/true);
        second_moment.copy_(second_moment.to(x.scalar_type()).lerp(mean, 1 - step.beta2));
        const at::Tensor v = over(second_moment.to(x.scalar_type()), step.correction);
        u = step.eps_form == MatrixConfig::EpsForm::clamp ? x * v.clamp_min(step.eps).rsqrt()
                                                          : x / (v.sqrt() + step.eps);
        const double size = std::sqrt(static_cast<double>(x.size(-2) * x.size(-1)));
        if (step.scale == Scale::restore_norm) u = u * (norm(x) / norm(u).clamp_min(1e-10));
        if (step.scale == Scale::paper) u = u * (0.2 * size / norm(u).clamp_min(1e-10));
    }
    if (step.factor != 1) u = u * step.factor;
    return factors.defined() ? u * factors.view({-1, 1, 1}) : u;
}

void reference::apply_matrix_update(const at::Tensor& update, const at::Tensor& factors,
                                    const at::Tensor& second_moment, const at::Tensor& value,
                                    const at::Tensor& copy, const MatrixStep& step) {
    at::Tensor u = scaled_update(update, factors, second_moment, step);
    at::Tensor p = step.mantissa.defined() ? joined(value, step.mantissa) : value.to(u.scalar_type());
    if (step.decay_kind == MatrixConfig::Decay::cautious) u = u + step.decay.now() * p * (u * p).ge(0);
    if (step.decay_kind == MatrixConfig::Decay::decoupled) p = p * (1 - step.decay.now());
    if (step.lr_muls.defined()) u = u * step.lr_muls.view({-1, 1, 1});
    p = p - step.lr.now() * u;
    if (step.mantissa.defined())
        split(p, value, step.mantissa);
    else
        value.copy_(p);
    if (copy.defined()) copy.copy_(value);
}

namespace {

speedrun::cuda::MatrixUpdate kernel_step(const MatrixStep& step) {
    using Raw = speedrun::cuda::MatrixUpdate;
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
    if (cuda::fused(grad) && cuda::fused(update))
        return cuda::momentum_update(cuda::gpu_of(grad), grad, momentum, update, mu, config);
    const bool fused = cpu::fused(grad) && cpu::fused(update);
    return fused ? cpu::momentum_update(grad, momentum, update, mu.now(), config)
                 : reference::momentum_update(grad, momentum, update, mu.now(), config);
}

void apply_matrix_update(const at::Tensor& update, const at::Tensor& factors, const at::Tensor& second_moment,
                         const at::Tensor& value, const at::Tensor& copy, const MatrixStep& step) {
    if (cuda::fused(update) && cuda::fused(value))
        return cuda::apply_matrix_update(cuda::gpu_of(update), update, factors, second_moment, value, copy,
                                         step);
    const bool fused = cpu::fused(update) && cpu::fused(value);
    return fused ? cpu::apply_matrix_update(update, factors, second_moment, value, copy, step)
                 : reference::apply_matrix_update(update, factors, second_moment, value, copy, step);
}

at::Tensor matrix_norms(const at::Tensor& x) {
    return at::linalg_vector_norm(x, 2, at::IntArrayRef{-2, -1}, false, at::kFloat);
}

void cuda::momentum_update(const Gpu& gpu, const at::Tensor& grad, const at::Tensor& momentum,
                           const at::Tensor& update, const StepNumber& mu,
                           const MatrixConfig::Momentum& config) {
    const int64_t count = grad.numel();
    check(momentum.scalar_type() == grad.scalar_type() || momentum.scalar_type() == at::kFloat,
          "momentum_update: a momentum of another dtype than the gradient's and fp32");
    gpu.kernels.momentum(flat(grad, count, "momentum_update: grad"),
                         flat(momentum, count, "momentum_update: momentum"),
                         flat(update, count, "momentum_update: update"), mu.number(),
                         config.form == Form::lerp, config.nesterov, count, gpu.stream);
}

void cuda::apply_matrix_update(const Gpu& gpu, const at::Tensor& update, const at::Tensor& factors,
                               const at::Tensor& second_moment, const at::Tensor& value,
                               const at::Tensor& copy, const MatrixStep& numbers) {
    check(update.dim() == 3 && value.sizes() == update.sizes(),
          "matrix_update: update and value are [n, rows, cols]");
    const int64_t count = update.size(0), rows = update.size(1), cols = update.size(2);
    raw::MatrixUpdate step = kernel_step(numbers);
    step.update = flat(update, update.numel(), "matrix_update: update");
    step.value = flat(value, value.numel(), "matrix_update: value");
    step.copy = flat(copy, value.numel(), "matrix_update: copy");
    step.factors = floats(factors, count, "matrix_update: factors");
    step.lr_muls = floats(numbers.lr_muls, count, "matrix_update: lr_muls");
    if (numbers.mantissa.defined()) {
        check(numbers.mantissa.scalar_type() == at::kShort && numbers.mantissa.is_contiguous() &&
                  numbers.mantissa.numel() == value.numel() && value.scalar_type() == at::kBFloat16,
              "matrix_update: a mantissa is int16, one for each bf16 number");
        step.mantissa = static_cast<uint16_t*>(numbers.mantissa.data_ptr());
    }
    const int64_t moments = count * (step.of_rows ? rows : cols);
    at::Tensor sums;
    if (numbers.moments) {
        step.second_moment = flat(second_moment, moments, "matrix_update: second_moment");
        sums = at::empty({moments}, update.options().dtype(at::kFloat));
    }
    step.sums = floats(sums, moments, "matrix_update: sums");
    gpu.kernels.matrix_update(step, count, rows, cols, gpu.stream);
}

}  // namespace speedrun::ops
