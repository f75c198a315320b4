#pragma once
#include <cstdint>
#include <span>

#include "ops/attention/cpu/attention_plan.h"

// The element-wise steps of ops/dynamic_composition.h on one block of queries. A strip is all keys that the
// block sees, [keys, kBlock queries], a whole number of blocks of keys; `factors` and sums are [kBlock], one
// a query.
namespace speedrun::ops::cpu {

// scores -> probabilities: 2^(log2_scale * score) / its sum over the keys, zero where masked; all zero for a
// query that sees no key, which does not exist. One mask a block of keys.
void softmax_of_strip(float* strip, std::span<const PairMask> masks, float log2_scale);

// to += factors * from
void add_strip(const float* from, const float* factors, float* to, int64_t keys);

// sums = sum over the keys of a * b
void strip_dots(const float* a, const float* b, int64_t keys, float* sums);

// p -> factors * p * (above - mean): the gradient of the scores behind p, `above` being that of the composed
// map and `mean` its mean under p.
void score_gradient(float* p, const float* above, const float* mean, const float* factors, int64_t keys);

}  // namespace speedrun::ops::cpu
