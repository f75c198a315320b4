#include "ops/optim/adam_update.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/cpu/convert.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using cpu::load;
using cpu::store;

constexpr int64_t kBlock = 256;  // elements looked at together
constexpr int64_t kTaskElements = 1 << 15;

struct Numbers {
    explicit Numbers(const AdamStep& step)
        : beta1(static_cast<float>(step.beta1)),
          beta2(static_cast<float>(step.beta2)),
          rest1(static_cast<float>(1 - step.beta1)),
          rest2(static_cast<float>(1 - step.beta2)),
          eps(static_cast<float>(step.eps.now())),
          step_size(static_cast<float>(step.step_size.now())),
          decay(static_cast<float>(step.decay.now())),
          keep(static_cast<float>(1 - step.decay.now())) {}
    float beta1, beta2, rest1, rest2, eps, step_size, decay, keep;

    // Whether an element without gradient and state stays as it is: no decay, no 0 / 0.
    bool idle_is_still(AdamDecay kind) const {
        return (decay == 0 || kind == AdamDecay::cautious_strict) && eps > 0 && std::isfinite(step_size);
    }
};

template <AdamDecay kind>
float decayed(float p, float u, const Numbers& n) {
    if constexpr (kind == AdamDecay::decoupled) return n.keep * p - u;
    const bool decays = kind == AdamDecay::cautious ? u * p >= 0 : u * p > 0;
    return p - (u + (decays ? n.decay * p : 0.0F));
}

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

template <AdamDecay kind, class P, class S>
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
        const float u = n.step_size * (first[i] / (root[i] + n.eps));
        store(value[i], decayed<kind>(load(value[i]), u, n));
    }
}

// Rows of tables whose token has not been seen cost one look instead of a pass.
template <AdamDecay kind, class P, class S>
void adam_range(P* value, P* grad, S* exp_avg, S* exp_avg_sq, int64_t count, const Numbers& n) {
    const bool may_skip = n.idle_is_still(kind);
    for (int64_t at = 0; at < count; at += kBlock) {
        const int64_t size = std::min(kBlock, count - at);
        if (may_skip && all_zero_bits(grad + at, size) && all_zero_bits(exp_avg_sq + at, size) &&
            all_zero_bits(exp_avg + at, size)) {
            continue;
        }
        adam_block<kind>(value + at, grad + at, exp_avg + at, exp_avg_sq + at, size, n);
    }
}

// Calls body.template operator()<kind>().
template <class Body>
void with_kind(AdamDecay kind, const Body& body) {
    switch (kind) {
        case AdamDecay::decoupled:
            return body.template operator()<AdamDecay::decoupled>();
        case AdamDecay::cautious:
            return body.template operator()<AdamDecay::cautious>();
        case AdamDecay::cautious_strict:
            return body.template operator()<AdamDecay::cautious_strict>();
    }
}

speedrun::cuda::Adam kernel_step(const AdamStep& step) {
    speedrun::cuda::Adam numbers;
    numbers.beta1 = static_cast<float>(step.beta1);
    numbers.beta2 = static_cast<float>(step.beta2);
    numbers.eps = step.eps.number();
    numbers.step_size = step.step_size.number();
    numbers.decay = step.decay.number();
    numbers.decay_kind = static_cast<speedrun::cuda::Adam::Decay>(step.decay_kind);
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
    const at::Tensor p = wide(value), u = step.step_size.now() * (m / (v.sqrt() + step.eps.now()));
    if (step.decay_kind == AdamDecay::decoupled) {
        value.copy_((1 - step.decay.now()) * p - u);
    } else {
        const bool strict = step.decay_kind == AdamDecay::cautious_strict;
        const at::Tensor decays = strict ? (u * p).gt(0) : (u * p).ge(0);
        value.copy_(p - (u + step.decay.now() * p * decays));
    }
    exp_avg.copy_(m);
    exp_avg_sq.copy_(v);
    grad.zero_();
}

void adam_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& exp_avg,
                 const at::Tensor& exp_avg_sq, const AdamStep& step) {
    if (cuda::fused(value))
        return cuda::adam_update(cuda::gpu_of(value), value, grad, exp_avg, exp_avg_sq, {}, step);
    if (!cpu::fused(value)) return reference::adam_update(value, grad, exp_avg, exp_avg_sq, step);
    const int64_t count = value.numel();
    const Numbers numbers(step);
    cpu::with_dtype(value.scalar_type(), [&]<class P>(P) {
        cpu::with_dtype(exp_avg.scalar_type(), [&]<class S>(S) {
            P* const p = cpu::flat<P>(value, count, "adam_update: value");
            P* const g = cpu::flat<P>(grad, count, "adam_update: grad");
            S* const m = cpu::flat<S>(exp_avg, count, "adam_update: exp_avg");
            S* const v = cpu::flat<S>(exp_avg_sq, count, "adam_update: exp_avg_sq");
            with_kind(step.decay_kind, [&]<AdamDecay kind>() {
                at::parallel_for(0, count, kTaskElements, [&](int64_t begin, int64_t end) {
                    adam_range<kind>(p + begin, g + begin, m + begin, v + begin, end - begin, numbers);
                });
            });
        });
    });
}

void cuda::adam_update(const Gpu& gpu, const at::Tensor& value, const at::Tensor& grad,
                       const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq, const at::Tensor& copy,
                       const AdamStep& step) {
    const int64_t count = value.numel();
    raw::Adam adam = kernel_step(step);
    adam.value = flat(value, count, "adam_update: value");
    adam.grad = flat(grad, count, "adam_update: grad");
    adam.exp_avg = flat(exp_avg, count, "adam_update: exp_avg");
    adam.exp_avg_sq = flat(exp_avg_sq, count, "adam_update: exp_avg_sq");
    adam.copy = flat(copy, count, "adam_update: copy");
    check(adam.value.type == adam.grad.type && adam.exp_avg.type == adam.exp_avg_sq.type,
          "adam_update: dtypes that do not agree");
    gpu.kernels.adam(adam, count, gpu.stream);
}

}  // namespace speedrun::ops
