#pragma once
#include <c10/util/BFloat16.h>

#include <cstdint>

#include "ops/head_loss.h"

namespace speedrun::ops::cpu {

// A soft cap as the vectorised pass computes it, with A its height and s its share:
//   sigmoid: E = 2^(shift + slope z), s = 1 / (1 + E)
//   rsqrt:   2 s - 1 = slope z / sqrt(1 + (slope z)^2)
// and exp(y - A / 2) = 2^(height (s - 1/2)), which lies within exp(+-A / 2) whatever z is, so that no running
// maximum is needed for |A| <= max_height.
struct SoftcapPass {
    static constexpr double max_height = 128;  // sums of 2^20 exponentials of 64 stay below the largest float
    Softcap::Form form;
    float slope, shift, height;

    explicit SoftcapPass(const Softcap& cap);
};

// For a tile z [rows, cols] of logits: sums[j] = sum_i exp(y_ij - A / 2), and q_ij = exp(y_ij - A / 2)
// bend(s_ij), which is the gradient of a column's log-sum-exp with respect to z_ij but for the factor slope()
// / sum_j of the cap. q null: sums only. z has row length cols; q has row length cols too. Accurate to a few
// units of fp32 rounding.
void softcap_pass(const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, float* q, float* sums);
void softcap_pass(const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, at::BFloat16* q,
                  float* sums);

}  // namespace speedrun::ops::cpu
