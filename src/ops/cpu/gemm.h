#pragma once
#include <c10/util/BFloat16.h>

#include <cstdint>
#include <span>

#include "ops/cpu/brgemm.h"

namespace speedrun::ops::cpu {

// Where alpha * product + beta * addend goes; the addend may be c itself, and is not read where beta is 0.
template <class C>
struct Output {
    C* c;
    int64_t row_stride;
    float alpha = 1, beta = 0;
    const C* addend = nullptr;
    int64_t addend_stride = 0;
    bool symmetric = false;  // as c will be: tiles below the diagonal are copied from above it
};

// a [M, K] b [K, N]
template <class T, class C>
struct Product {
    MatrixView<T> a, b;
    Output<C> out;
};

// By tiles of brgemm, on all threads where it is worth it. T, C: float, float; bf16, float; bf16, bf16.
// Everything is computed in fp32 and rounded once; without has_bf16_brgemm() operands are packed as fp32.
template <class T, class C>
void gemm(const Product<T, C>& product);

// A thread a product, and all threads on each of the last ones, which do not fill a round. The same T.
template <class T>
void batched_gemm(std::span<const Product<T, T>> products);

// Bytes of packed operands that a product [rows, depth] [depth, cols] of `item`-byte elements leaves with the
// calling thread on a CPU, for the next one. A row-major left operand is read where it lies, unless it is
// widened.
struct GemmScratch {
    int64_t a = 0, b = 0;
};
enum class LeftOperand { row_major, transposed };
GemmScratch gemm_scratch(int64_t rows, int64_t depth, int64_t cols, int64_t item, LeftOperand left);

}  // namespace speedrun::ops::cpu
