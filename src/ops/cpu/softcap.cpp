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

// 1 / sqrt(v) for a normal v > 0, NaN for NaN. A guess from the halved exponent is 3.5 % off at most, which
// three of Newton's steps bring below fp32's rounding. std::sqrt may set errno, so that GCC does not
// vectorise it.
[[gnu::always_inline]] inline float inverse_root(float v) {
    float root = std::bit_cast<float>(0x5f3759dfU - (std::bit_cast<uint32_t>(v) >> 1U));
    for (int i = 0; i < 3; ++i) root *= 1.5F - 0.5F * v * root * root;
    return root;
}

struct Nothing {};  // instead of a type of q: sums only

// exp(y - A / 2) and the bend of one logit.
struct Capped {
    float exponential, bend;
};

template <Softcap::Form form>
[[gnu::always_inline]] inline Capped capped(const SoftcapPass& cap, float z) {
    if constexpr (form == Softcap::Form::sigmoid) {
        float u = z * cap.slope + cap.shift;
        u = u > 126.0F ? 126.0F : u;  // written so that NaN passes
        u = u < -126.0F ? -126.0F : u;
        const float big_e = exp2_bounded(u);
        const float s = 1.0F / (1.0F + big_e);
        return {exp2_bounded(cap.height * s - 0.5F * cap.height), s * (s * big_e)};
    } else {
        constexpr float largest = 0x1p60F;  // whose square is finite
        float u = z * cap.slope;
        u = u > largest ? largest : u;
        u = u < -largest ? -largest : u;
        const float root = inverse_root(1.0F + u * u);
        return {exp2_bounded(0.5F * cap.height * (u * root)), root * root * root};
    }
}

template <Softcap::Form form, class Q>
[[gnu::always_inline]] inline void rows_pass(const SoftcapPass& cap, const float* z, int64_t rows,
                                             int64_t cols, Q* q, float* __restrict sums) {
    const SoftcapPass own = cap;
    std::fill_n(sums, cols, 0.0F);
    for (int64_t i = 0; i < rows; ++i) {
        const float* __restrict zi = z + i * cols;
        Q* __restrict qi = nullptr;
        if constexpr (!std::is_same_v<Q, Nothing>) qi = q + i * cols;
        for (int64_t j = 0; j < cols; ++j) {
            const Capped logit = capped<form>(own, zi[j]);
            sums[j] += logit.exponential;
            if constexpr (!std::is_same_v<Q, Nothing>) qi[j] = narrow<Q>(logit.exponential * logit.bend);
        }
    }
}

// The same loop compiled for two instruction sets; GCC would use only half of AVX-512's width by itself.
template <Softcap::Form form, class Q>
[[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")]] void rows_pass_avx512(
    const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, Q* q, float* sums) {
    rows_pass<form>(cap, z, rows, cols, q, sums);
}

template <Softcap::Form form, class Q>
void dispatch_form(const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, Q* q, float* sums) {
    static const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                               __builtin_cpu_supports("avx512vl");
    if (avx512) {
        rows_pass_avx512<form>(cap, z, rows, cols, q, sums);
    } else {
        rows_pass<form>(cap, z, rows, cols, q, sums);
    }
}

template <class Q>
void dispatch(const SoftcapPass& cap, const float* z, int64_t rows, int64_t cols, Q* q, float* sums) {
    if (cap.form == Softcap::Form::sigmoid)
        dispatch_form<Softcap::Form::sigmoid>(cap, z, rows, cols, q, sums);
    else
        dispatch_form<Softcap::Form::rsqrt>(cap, z, rows, cols, q, sums);
}

}  // namespace

SoftcapPass::SoftcapPass(const Softcap& cap)
    : form(cap.form),
      slope(static_cast<float>(form == Softcap::Form::sigmoid ? -M_LOG2E / cap.c : 1 / cap.a)),
      shift(static_cast<float>(-M_LOG2E * cap.b / cap.c)),
      height(static_cast<float>(cap.height() * M_LOG2E)) {}

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
