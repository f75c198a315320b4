#pragma once
#include <c10/util/BFloat16.h>

#include <cstdint>

namespace speedrun::ops::cpu {

// The soft cap y = A sigmoid((z + B) / C) as the vectorised pass computes it:
//   E = 2^(shift + slope z),  s = 1 / (1 + E),  exp(y - A / 2) = 2^(height (s - 1/2)).
// exp(y - A / 2) lies within exp(+-A / 2) whatever z is, so no running maximum is needed for |A| <=
// max_height.
struct SoftcapPass {
    static constexpr double max_height = 128;  // sums of 2^20 exponentials of 64 stay below the largest float
    float slope, shift, height;

    SoftcapPass(double a, double b, double c);
};

// For a tile z [rows, cols] of logits: sums[j] = sum_i exp(y_ij - A / 2), and q_ij = exp(y_ij - A / 2) s (1 -
// s), which is the gradient of a column's log-sum-exp with respect to z_ij but for the factor A / (C sum_j).
// q null: sums only. z has row length cols; q has row length cols too. Accurate to a few units of fp32
// rounding.
void softcap_pass(const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, float* q, float* sums);
void softcap_pass(const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, at::BFloat16* q,
                  float* sums);

}  // namespace speedrun::ops::cpu
