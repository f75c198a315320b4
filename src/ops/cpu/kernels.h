#pragma once
#include <cmath>
#include <cstdint>

#include "ops/cpu/convert.h"

// Loops over one row that several ops need.
namespace speedrun::ops::cpu {

// sum a_i b_i in fp32. Four runs side by side, because one chain of additions would wait for its own latency.
template <class A, class B>
float dot(const A* a, const B* b, int64_t n) {
    const int64_t quarter = n / 4;
    const A *a1 = a + quarter, *a2 = a1 + quarter, *a3 = a2 + quarter;
    const B *b1 = b + quarter, *b2 = b1 + quarter, *b3 = b2 + quarter;
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < quarter; ++i) {
        s0 += load(a[i]) * load(b[i]);
        s1 += load(a1[i]) * load(b1[i]);
        s2 += load(a2[i]) * load(b2[i]);
        s3 += load(a3[i]) * load(b3[i]);
    }
    float sum = (s0 + s1) + (s2 + s3);
    for (int64_t i = 4 * quarter; i < n; ++i) sum += load(a[i]) * load(b[i]);
    return sum;
}

// 1 / sqrt(mean(x^2) + eps)
template <class T>
float reciprocal_rms(const T* x, int64_t n, float eps) {
    return 1.0F / std::sqrt(dot(x, x, n) / static_cast<float>(n) + eps);
}

// to = factor * from; to may be from.
template <class From, class To>
void scale(const From* from, float factor, To* to, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(to[i], factor * load(from[i]));
}

// to += factor * from; to may be from.
template <class From, class To>
void add_scaled(const From* from, float factor, To* to, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(to[i], load(to[i]) + factor * load(from[i]));
}

}  // namespace speedrun::ops::cpu
