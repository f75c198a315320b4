#include "ops/cpu/attention_tile.h"

#include <algorithm>
#include <limits>

#include "ops/cpu/convert.h"
#include "ops/cpu/exp2.h"

// One copy of each loop for AVX-512 and one for the baseline, chosen when the program is loaded.
#define SPEEDRUN_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "default")))

namespace speedrun::ops::cpu {
namespace {

using c10::BFloat16;
constexpr float kNever = -std::numeric_limits<float>::infinity();

uint32_t half_bits(float value) {
    BFloat16 half;
    store(half, value);
    return half.x;
}

// scores *= scale, -inf where masked; maximum = max(maximum, scores)
SPEEDRUN_VECTOR_CLONES
void scale_and_bound(float* __restrict scores, const PairMask& mask, float scale, float* __restrict maximum) {
    for (int32_t key = 0; key < kBlock; ++key) {
        float* row = scores + key * kBlock;
        for (int64_t i = 0; i < kBlock; ++i) {
            const bool seen = mask.full || (mask.lo[i] <= key && key <= mask.hi[i]);
            row[i] = seen ? row[i] * scale : kNever;
            maximum[i] = row[i] > maximum[i] ? row[i] : maximum[i];
        }
    }
}

SPEEDRUN_VECTOR_CLONES
void rescale(const float* __restrict before, RunningSoftmax& softmax) {
    for (int64_t i = 0; i < kBlock; ++i) {
        softmax.rescale[i] = exp2_fast(before[i] - softmax.maximum[i]);
        softmax.sum[i] *= softmax.rescale[i];
    }
}

SPEEDRUN_VECTOR_CLONES
void exponentials(float* __restrict scores, const float* __restrict maximum, float* __restrict sum) {
    for (int64_t key = 0; key < kBlock; ++key) {
        float* row = scores + key * kBlock;
        for (int64_t i = 0; i < kBlock; ++i) {
            row[i] = exp2_fast(row[i] - maximum[i]);
            sum[i] += row[i];
        }
    }
}

SPEEDRUN_VECTOR_CLONES
void exponentials(const float* __restrict scores, const float* __restrict maximum, float* __restrict sum,
                  uint32_t* __restrict pairs) {
    for (int64_t key = 0; key < kBlock; key += 2) {
        const float *even = scores + key * kBlock, *odd = even + kBlock;
        uint32_t* row = pairs + key / 2 * kBlock;
        for (int64_t i = 0; i < kBlock; ++i) {
            const float a = exp2_fast(even[i] - maximum[i]), b = exp2_fast(odd[i] - maximum[i]);
            sum[i] += a + b;
            row[i] = half_bits(a) | half_bits(b) << 16;
        }
    }
}

template <class Exponentials>
void softmax_step(float* scores, const PairMask& mask, float log2_scale, RunningSoftmax& softmax,
                  const Exponentials& exponentials_of) {
    float before[kBlock];
    std::copy_n(softmax.maximum, kBlock, before);
    scale_and_bound(scores, mask, log2_scale, softmax.maximum);
    rescale(before, softmax);
    exponentials_of();
}

struct Gradient {
    float p, ds;
};

[[gnu::always_inline]] inline Gradient gradient(float score, float dp, bool seen, float scale, float log2_sum,
                                                float delta) {
    const float p = seen ? exp2_fast(score * scale - log2_sum) : 0.0F;
    return {p, p * (dp - delta)};
}

}  // namespace

void RunningSoftmax::reset() {
    // Finite, so that a query that has not seen any key yet keeps probability 0 instead of inf - inf.
    std::fill_n(maximum, kBlock, -1e30F);
    std::fill_n(sum, kBlock, 0.0F);
}

void softmax_tile(float* scores, const PairMask& mask, float log2_scale, RunningSoftmax& softmax, float*) {
    softmax_step(scores, mask, log2_scale, softmax,
                 [&] { exponentials(scores, softmax.maximum, softmax.sum); });
}

void softmax_tile(float* scores, const PairMask& mask, float log2_scale, RunningSoftmax& softmax,
                  BFloat16* right) {
    softmax_step(scores, mask, log2_scale, softmax, [&] {
        exponentials(scores, softmax.maximum, softmax.sum, reinterpret_cast<uint32_t*>(right));
    });
}

SPEEDRUN_VECTOR_CLONES
void scale_columns(float* tile, int64_t rows, const float* factor) {
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t i = 0; i < kBlock; ++i) tile[row * kBlock + i] *= factor[i];
    }
}

SPEEDRUN_VECTOR_CLONES
void gradient_tile(const float* scores, const float* dp, const PairMask& mask, float log2_scale,
                   const QueryStatistics& queries, float* p_left, float* ds_left, float*) {
    for (int32_t key = 0; key < kBlock; ++key) {
#pragma omp simd
        for (int64_t i = 0; i < kBlock; ++i) {
            const int64_t at = key * kBlock + i;
            const bool seen = mask.full || (mask.lo[i] <= key && key <= mask.hi[i]);
            const Gradient g =
                gradient(scores[at], dp[at], seen, log2_scale, queries.log2_sum[i], queries.delta[i]);
            p_left[at] = g.p;
            ds_left[at] = g.ds;
        }
    }
}

SPEEDRUN_VECTOR_CLONES
void gradient_pairs(const float* __restrict scores, const float* __restrict dp, const PairMask& mask,
                    float scale, const QueryStatistics& queries, uint16_t* __restrict p,
                    uint16_t* __restrict ds, uint32_t* __restrict ds_pairs) {
    for (int32_t key = 0; key < kBlock; key += 2) {
        for (int64_t i = 0; i < kBlock; ++i) {
            const int64_t even = key * kBlock + i, odd = even + kBlock;
            const bool seen_even = mask.full || (mask.lo[i] <= key && key <= mask.hi[i]);
            const bool seen_odd = mask.full || (mask.lo[i] <= key + 1 && key + 1 <= mask.hi[i]);
            const float log2_sum = queries.log2_sum[i], delta = queries.delta[i];
            const Gradient a = gradient(scores[even], dp[even], seen_even, scale, log2_sum, delta);
            const Gradient b = gradient(scores[odd], dp[odd], seen_odd, scale, log2_sum, delta);
            p[even] = static_cast<uint16_t>(half_bits(a.p));
            p[odd] = static_cast<uint16_t>(half_bits(b.p));
            const uint32_t low = half_bits(a.ds), high = half_bits(b.ds);
            ds[even] = static_cast<uint16_t>(low);
            ds[odd] = static_cast<uint16_t>(high);
            ds_pairs[key / 2 * kBlock + i] = low | high << 16;
        }
    }
}

void gradient_tile(const float* scores, const float* dp, const PairMask& mask, float log2_scale,
                   const QueryStatistics& queries, BFloat16* p_left, BFloat16* ds_left, BFloat16* ds_right) {
    gradient_pairs(scores, dp, mask, log2_scale, queries, reinterpret_cast<uint16_t*>(p_left),
                   reinterpret_cast<uint16_t*>(ds_left), reinterpret_cast<uint32_t*>(ds_right));
}

}  // namespace speedrun::ops::cpu
