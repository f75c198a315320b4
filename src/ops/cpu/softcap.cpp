#include "ops/cpu/softcap.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>

#include "ops/cpu/bf16.h"

namespace speedrun::ops::cpu {

namespace {

// 2^x for |x| <= 126, NaN for NaN. 2^x = 2^n 2^r with n = round(x); 2^r by interpolation at the Chebyshev
// nodes of
// [-1/2, 1/2], relative error 2.5e-9.
[[gnu::always_inline]] inline float exp2_bounded(float x) {
    constexpr float rounder = 0x1.8p23F;  // adding it leaves round(x) in the low bits
    const float shifted = x + rounder;
    const float r = x - (shifted - rounder);
    float p = 0.000154614447F;
    p = p * r + 0.001340042818F;
    p = p * r + 0.009618056679F;
    p = p * r + 0.05550327227F;
    p = p * r + 0.2402265092F;
    p = p * r + 0.6931472067F;
    p = p * r + 1.0F;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23));
}

struct Nothing {};  // instead of a type of q: sums only

template <class Q>
[[gnu::always_inline]] inline void rows_pass(const SoftcapPass& cap, const float* z, int64_t rows,
                                             int64_t cols, Q* q, float* __restrict sums) {
    const float slope = cap.slope, shift = cap.shift, height = cap.height;
    std::fill_n(sums, cols, 0.0F);
    for (int64_t i = 0; i < rows; ++i) {
        const float* __restrict zi = z + i * cols;
        Q* __restrict qi = nullptr;
        if constexpr (!std::is_same_v<Q, Nothing>) qi = q + i * cols;
        for (int64_t j = 0; j < cols; ++j) {
            float u = zi[j] * slope + shift;
            u = u > 126.0F ? 126.0F : u;  // written so that NaN passes
            u = u < -126.0F ? -126.0F : u;
            const float big_e = exp2_bounded(u);
            const float s = 1.0F / (1.0F + big_e);
            const float e = exp2_bounded(height * s - 0.5F * height);
            sums[j] += e;
            if constexpr (!std::is_same_v<Q, Nothing>) qi[j] = narrow<Q>(e * s * (s * big_e));
        }
    }
}

// The same loop compiled for two instruction sets; GCC would use only half of AVX-512's width by itself.
template <class Q>
[[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")]] void rows_pass_avx512(
    const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, Q* q, float* sums) {
    rows_pass(cap, z, rows, cols, q, sums);
}

template <class Q>
void dispatch(const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, Q* q, float* sums) {
    static const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                               __builtin_cpu_supports("avx512vl");
    if (avx512) {
        rows_pass_avx512(cap, z, rows, cols, q, sums);
    } else {
        rows_pass(cap, z, rows, cols, q, sums);
    }
}

}  // namespace

SoftcapPass::SoftcapPass(double a, double b, double c)
    : slope(static_cast<float>(-M_LOG2E / c)),
      shift(static_cast<float>(-M_LOG2E * b / c)),
      height(static_cast<float>(a * M_LOG2E)) {}

void softcap_pass(const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, float* q, float* sums) {
    if (q == nullptr) {
        dispatch(cap, z, rows, cols, static_cast<Nothing*>(nullptr), sums);
    } else {
        dispatch(cap, z, rows, cols, q, sums);
    }
}

void softcap_pass(const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, at::BFloat16* q,
                  float* sums) {
    if (q == nullptr) {
        dispatch(cap, z, rows, cols, static_cast<Nothing*>(nullptr), sums);
    } else {
        dispatch(cap, z, rows, cols, q, sums);
    }
}

}  // namespace speedrun::ops::cpu
