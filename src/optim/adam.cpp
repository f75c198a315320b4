#include "optim/adam.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/cpu/convert.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/fused.h"
#include "util/error.h"

namespace speedrun {
namespace {

using ops::cpu::flat;
using ops::cpu::load;
using ops::cpu::store;

constexpr int64_t kBlock = 256;  // elements looked at together
constexpr int64_t kTaskElements = 1 << 15;

struct Numbers {
    explicit Numbers(const AdamStep& step)
        : beta1(static_cast<float>(step.beta1)),
          beta2(static_cast<float>(step.beta2)),
          rest1(static_cast<float>(1 - step.beta1)),
          rest2(static_cast<float>(1 - step.beta2)),
          eps(static_cast<float>(step.eps)),
          step_size(static_cast<float>(step.step_size.now())),
          keep(static_cast<float>(step.keep.now())) {}
    float beta1, beta2, rest1, rest2, eps, step_size, keep;

    // Whether an element without gradient and state stays as it is: no decay, no 0 / 0.
    bool idle_is_still() const { return keep == 1 && eps > 0 && std::isfinite(step_size); }
};

template <class T>
bool all_zero_bits(const T* x, int64_t count) {
    uint32_t any = 0;
    for (int64_t i = 0; i < count; ++i) any |= std::bit_cast<uint32_t>(load(x[i]));
    return any == 0;
}

// std::sqrt may set errno, which keeps GCC from vectorising a loop around it.
void square_roots(float* x) {
    static_assert(kBlock % 8 == 0);
    for (int64_t i = 0; i < kBlock; i += 8) _mm256_store_ps(x + i, _mm256_sqrt_ps(_mm256_load_ps(x + i)));
}

template <class P, class S>
void adam_block(P* value, P* grad, S* exp_avg, S* exp_avg_sq, int64_t count, const Numbers n) {
    alignas(64) float first[kBlock], root[kBlock];
    std::fill(root + count, root + kBlock, 0.0F);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const float g = load(grad[i]);
        first[i] = n.beta1 * load(exp_avg[i]) + n.rest1 * g;
        root[i] = n.beta2 * load(exp_avg_sq[i]) + n.rest2 * (g * g);
        store(exp_avg[i], first[i]);
        store(exp_avg_sq[i], root[i]);
        store(grad[i], 0);
    }
    square_roots(root);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        store(value[i], n.keep * load(value[i]) - n.step_size * (first[i] / (root[i] + n.eps)));
    }
}

// Rows of tables whose token has not been seen cost one look instead of a pass.
template <class P, class S>
void adam_range(P* value, P* grad, S* exp_avg, S* exp_avg_sq, int64_t count, const Numbers& n) {
    const bool may_skip = n.idle_is_still();
    for (int64_t at = 0; at < count; at += kBlock) {
        const int64_t size = std::min(kBlock, count - at);
        if (may_skip && all_zero_bits(grad + at, size) && all_zero_bits(exp_avg_sq + at, size) &&
            all_zero_bits(exp_avg + at, size)) {
            continue;
        }
        adam_block(value + at, grad + at, exp_avg + at, exp_avg_sq + at, size, n);
    }
}

cuda::Adam of_kernel(const AdamStep& step) {
    cuda::Adam numbers;
    numbers.beta1 = static_cast<float>(step.beta1);
    numbers.beta2 = static_cast<float>(step.beta2);
    numbers.eps = static_cast<float>(step.eps);
    numbers.step_size = step.step_size.number();
    numbers.keep = step.keep.number();
    return numbers;
}

}  // namespace

void reference::adam_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& exp_avg,
                            const at::Tensor& exp_avg_sq, const AdamStep& step) {
    const auto wide = [](const at::Tensor& x) {
        return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
    };
    const at::Tensor g = wide(grad);
    const at::Tensor m = step.beta1 * wide(exp_avg) + (1 - step.beta1) * g;
    const at::Tensor v = step.beta2 * wide(exp_avg_sq) + (1 - step.beta2) * g.square();
    value.copy_(step.keep.now() * wide(value) - step.step_size.now() * (m / (v.sqrt() + step.eps)));
    exp_avg.copy_(m);
    exp_avg_sq.copy_(v);
    grad.zero_();
}

void adam_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& exp_avg,
                 const at::Tensor& exp_avg_sq, const AdamStep& step) {
    if (ops::cuda::fused(value))
        return ops::cuda::on_device_of(value).adam_update(value, grad, exp_avg, exp_avg_sq, {},
                                                          of_kernel(step));
    if (!ops::cpu::fused(value)) return reference::adam_update(value, grad, exp_avg, exp_avg_sq, step);
    const int64_t count = value.numel();
    const Numbers numbers(step);
    ops::cpu::with_dtype(value.scalar_type(), [&]<class P>(P) {
        ops::cpu::with_dtype(exp_avg.scalar_type(), [&]<class S>(S) {
            P* const p = flat<P>(value, count, "adam_update: value");
            P* const g = flat<P>(grad, count, "adam_update: grad");
            S* const m = flat<S>(exp_avg, count, "adam_update: exp_avg");
            S* const v = flat<S>(exp_avg_sq, count, "adam_update: exp_avg_sq");
            at::parallel_for(0, count, kTaskElements, [&](int64_t begin, int64_t end) {
                adam_range(p + begin, g + begin, m + begin, v + begin, end - begin, numbers);
            });
        });
    });
}

Adam::Adam(const AdamConfig& config, const OptimParamConfig& row, const Parameter& part)
    : config_(config), row_(row) {
    const bool wide = part.value.dim() < 2;
    const auto options = part.value.options().dtype(wide ? at::kFloat : scalar_type(config.state_dtype));
    exp_avg_ = at::zeros(part.value.sizes(), options);
    exp_avg_sq_ = at::zeros(part.value.sizes(), options);
}

// step_size and keep of an AdamStep.
std::vector<double> Adam::step_numbers(const RuleStep& step) const {
    check(step.t >= 1, "Adam counts its steps from 1");
    const double lr = config_.lr * row_.lr_mul * step.lr_scale, count = static_cast<double>(step.t);
    const double correction1 = 1 - std::pow(config_.beta1, count),
                 correction2 = 1 - std::pow(config_.beta2, count);
    return {lr * std::sqrt(correction2) / correction1, 1 - lr * config_.weight_decay * row_.wd_mul};
}

void Adam::step(Parameter& part, const RuleStep& step) {
    const std::vector<double> numbers = step_numbers(step);
    adam_update(part.value, part.grad, exp_avg_, exp_avg_sq_,
                {.beta1 = config_.beta1,
                 .beta2 = config_.beta2,
                 .eps = config_.eps,
                 .step_size = step.number(numbers, 0),
                 .keep = step.number(numbers, 1)});
    if (!part.used.is_same(part.value)) part.used.copy_(part.value);
}

std::vector<StateTensor> Adam::state() const {
    return {{"exp_avg", exp_avg_}, {"exp_avg_sq", exp_avg_sq_}};
}

// ATen's adam_update: g, m, v, root, quotient and value in fp32.
RuleCost Adam::cost(bool fused) const {
    return {.work_bytes = fused ? 0 : 6 * 4 * exp_avg_.numel()};
}

}  // namespace speedrun
