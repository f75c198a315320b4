#include "ops/attention/cpu/attention_tile.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "ops/cpu/convert.h"
#include "ops/cpu/exp2.h"
#include "ops/cpu/vector_clones.h"

namespace speedrun::ops::cpu {
namespace {

using c10::BFloat16;
constexpr float kNever = -std::numeric_limits<float>::infinity();

// The exponent, or one whose power is 0 where query i does not see the key.
[[gnu::always_inline]] inline float visible(float exponent, int32_t key, const PairMask& mask, int64_t i) {
    // Selected by bits: from a selection by value GCC makes a branch around what uses it.
    const uint32_t keep = ((mask.lo[i] <= key) & (key <= mask.hi[i])) != 0 ? ~0U : 0U;
    return std::bit_cast<float>((std::bit_cast<uint32_t>(exponent) & keep) |
                                (std::bit_cast<uint32_t>(kNever) & ~keep));
}

[[gnu::always_inline]] inline uint32_t half_bits(float value) {
    BFloat16 half;
    store(half, value);
    return half.x;
}

// scores *= scale, -inf where masked; maximum = max(maximum, scores)
SPEEDRUN_VECTOR_CLONES
void scale_and_bound(float* __restrict scores, const PairMask& mask, float scale, float* __restrict maximum) {
    for (int32_t key = 0; key < kBlock; ++key) {
        float* row = scores + key * kBlock;
#pragma omp simd
        for (int64_t i = 0; i < kBlock; ++i) {
            const float score = visible(row[i] * scale, key, mask, i);
            row[i] = score;
            maximum[i] = score > maximum[i] ? score : maximum[i];
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
#pragma omp simd
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
#pragma omp simd
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

// p and ds of one key and all queries of the block
[[gnu::always_inline]] inline void gradient_row(const float* scores, const float* dp, int32_t key,
                                                const PairMask& mask, float scale,
                                                const QueryStatistics& queries, float* p, float* ds) {
#pragma omp simd
    for (int64_t i = 0; i < kBlock; ++i) {
        const float value = exp2_fast(visible(scores[i] * scale - queries.log2_sum[i], key, mask, i));
        const float gradient = value * (dp[i] - queries.delta[i]);
        p[i] = value;
        ds[i] = gradient;
    }
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
        const int64_t at = key * kBlock;
        gradient_row(scores + at, dp + at, key, mask, log2_scale, queries, p_left + at, ds_left + at);
    }
}

SPEEDRUN_VECTOR_CLONES
void gradient_tile(const float* scores, const float* dp, const PairMask& mask, float log2_scale,
                   const QueryStatistics& queries, BFloat16* p_left, BFloat16* ds_left, BFloat16* ds_right) {
    auto* p_halves = reinterpret_cast<uint16_t*>(p_left);
    auto* ds_halves = reinterpret_cast<uint16_t*>(ds_left);
    auto* ds_pairs = reinterpret_cast<uint32_t*>(ds_right);
    for (int32_t key = 0; key < kBlock; key += 2) {
        float p[2 * kBlock], ds[2 * kBlock];
        const int64_t at = key * kBlock;
        gradient_row(scores + at, dp + at, key, mask, log2_scale, queries, p, ds);
        gradient_row(scores + at + kBlock, dp + at + kBlock, key + 1, mask, log2_scale, queries, p + kBlock,
                     ds + kBlock);
#pragma omp simd
        for (int64_t i = 0; i < 2 * kBlock; ++i) p_halves[at + i] = static_cast<uint16_t>(half_bits(p[i]));
#pragma omp simd
        for (int64_t i = 0; i < 2 * kBlock; ++i) ds_halves[at + i] = static_cast<uint16_t>(half_bits(ds[i]));
#pragma omp simd
        for (int64_t i = 0; i < kBlock; ++i) {
            ds_pairs[at / 2 + i] = half_bits(ds[i]) | half_bits(ds[kBlock + i]) << 16;
        }
    }
}

}  // namespace speedrun::ops::cpu
