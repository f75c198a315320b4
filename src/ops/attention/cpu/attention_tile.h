#pragma once
#include <c10/util/BFloat16.h>

#include <cstdint>

#include "ops/attention/cpu/attention_plan.h"

// The element-wise steps of attention on one pair of blocks. Tiles are [kBlock keys, kBlock queries]:
// transposed scores, so that every vector instruction works on 16 (or 8) queries at once and no sum runs
// across a vector.
namespace speedrun::ops::cpu {

// Running softmax of one block of queries, in units of log2: after each tile the maximum of the scores so far
// and the sum of 2^(score - maximum).
struct RunningSoftmax {
    float maximum[kBlock], sum[kBlock];
    float rescale[kBlock];  // 2^(old maximum - new maximum): what everything summed up before has to be
                            // multiplied by

    void reset();
};

// scores (overwritten) -> probabilities 2^(log2_scale * score - maximum), zero where masked, as the right
// operand of brgemm with K = keys: fp32 in place, bf16 in VNNI order.
void softmax_tile(float* scores, const PairMask& mask, float log2_scale, RunningSoftmax& softmax,
                  float* right);
void softmax_tile(float* scores, const PairMask& mask, float log2_scale, RunningSoftmax& softmax,
                  c10::BFloat16* right);

// tile [rows, kBlock] *= factor [kBlock]
void scale_columns(float* tile, int64_t rows, const float* factor);

// What the backward pass knows about each query of a block.
struct QueryStatistics {
    float log2_sum[kBlock];  // lse / ln 2
    float delta[kBlock];     // dout . out
};

// scores, dp = V dout^T (both overwritten) -> p = 2^(log2_scale * score - log2_sum) and ds = p * (dp -
// delta), zero where masked: both as left operands [kBlock keys, kBlock queries], and ds as right operand
// with K = keys. fp32: p may be scores; ds_left and ds_right may be dp, and are the same thing.
void gradient_tile(const float* scores, const float* dp, const PairMask& mask, float log2_scale,
                   const QueryStatistics& queries, float* p_left, float* ds_left, float* ds_right);
void gradient_tile(const float* scores, const float* dp, const PairMask& mask, float log2_scale,
                   const QueryStatistics& queries, c10::BFloat16* p_left, c10::BFloat16* ds_left,
                   c10::BFloat16* ds_right);

}  // namespace speedrun::ops::cpu
