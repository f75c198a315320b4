#include "ops/attention/cpu/composition_tile.h"

#include <algorithm>

#include "ops/cpu/exp2.h"
#include "ops/cpu/vector_clones.h"

namespace speedrun::ops::cpu {
namespace {

// Finite, so that a query without keys gets zeros instead of inf - inf; scores below it count as masked.
constexpr float kLowest = -1e30F;

// scores *= scale, kLowest where masked; maximum = max(maximum, scores)
SPEEDRUN_VECTOR_CLONES
void scale_and_mask(float* __restrict tile, const PairMask& mask, float scale, float* __restrict maximum) {
    for (int32_t key = 0; key < kBlock; ++key) {
        float* row = tile + key * kBlock;
#pragma omp simd
        for (int64_t i = 0; i < kBlock; ++i) {
            const bool seen = (mask.lo[i] <= key) & (key <= mask.hi[i]);
            const float score = seen ? row[i] * scale : kLowest;
            row[i] = score;
            maximum[i] = score > maximum[i] ? score : maximum[i];
        }
    }
}

// NaN stays NaN; what is masked becomes 0, unless all is.
SPEEDRUN_VECTOR_CLONES
void exponentials_of_strip(float* __restrict strip, const float* __restrict maximum, float* __restrict sum,
                           int64_t keys) {
    for (int64_t key = 0; key < keys; ++key) {
        float* row = strip + key * kBlock;
#pragma omp simd
        for (int64_t i = 0; i < kBlock; ++i) {
            row[i] = exp2_fast(row[i] - maximum[i]);
            sum[i] += row[i];
        }
    }
}

SPEEDRUN_VECTOR_CLONES
void multiply_strip(float* __restrict strip, const float* __restrict factors, int64_t keys) {
    for (int64_t key = 0; key < keys; ++key) {
        float* row = strip + key * kBlock;
#pragma omp simd
        for (int64_t i = 0; i < kBlock; ++i) row[i] *= factors[i];
    }
}

}  // namespace

void softmax_of_strip(float* strip, std::span<const PairMask> masks, float log2_scale) {
    const int64_t keys = std::ssize(masks) * kBlock;
    float maximum[kBlock], sum[kBlock] = {}, factor[kBlock];
    std::fill_n(maximum, kBlock, kLowest);
    for (size_t block = 0; block < masks.size(); ++block)
        scale_and_mask(strip + static_cast<int64_t>(block) * kBlock * kBlock, masks[block], log2_scale,
                       maximum);
    exponentials_of_strip(strip, maximum, sum, keys);
    for (int64_t i = 0; i < kBlock; ++i) factor[i] = maximum[i] == kLowest ? 0 : 1 / sum[i];
    multiply_strip(strip, factor, keys);
}

SPEEDRUN_VECTOR_CLONES
void add_strip(const float* __restrict from, const float* __restrict factors, float* __restrict to,
               int64_t keys) {
    for (int64_t key = 0; key < keys; ++key) {
        const int64_t row = key * kBlock;
#pragma omp simd
        for (int64_t i = 0; i < kBlock; ++i) to[row + i] += factors[i] * from[row + i];
    }
}

SPEEDRUN_VECTOR_CLONES
void strip_dots(const float* __restrict a, const float* __restrict b, int64_t keys, float* __restrict sums) {
    std::fill_n(sums, kBlock, 0.0F);
    for (int64_t key = 0; key < keys; ++key) {
        const int64_t row = key * kBlock;
#pragma omp simd
        for (int64_t i = 0; i < kBlock; ++i) sums[i] += a[row + i] * b[row + i];
    }
}

SPEEDRUN_VECTOR_CLONES
void score_gradient(float* __restrict p, const float* __restrict above, const float* __restrict mean,
                    const float* __restrict factors, int64_t keys) {
    for (int64_t key = 0; key < keys; ++key) {
        const int64_t row = key * kBlock;
#pragma omp simd
        for (int64_t i = 0; i < kBlock; ++i) p[row + i] *= factors[i] * (above[row + i] - mean[i]);
    }
}

}  // namespace speedrun::ops::cpu
