#pragma once
#include <c10/util/BFloat16.h>

#include <cstdint>

namespace speedrun::ops::cpu {

// One operand of a product: element (i, j) is data[i * row_stride + j * col_stride], and one stride is 1.
template <class T>
struct MatrixView {
    const T* data;
    int64_t rows, cols, row_stride, col_stride;

    MatrixView block(int64_t row, int64_t col, int64_t n_rows, int64_t n_cols) const {
        return {data + row * row_stride + col * col_stride, n_rows, n_cols, row_stride, col_stride};
    }
};

// The micro-kernels read bf16 in pairs along K: packed operands are padded with a zero to an even K.
template <class T>
constexpr int64_t padded_k(int64_t k) {
    return sizeof(T) == 2 ? (k + 1) / 2 * 2 : k;
}

// Whether bf16 micro-kernels run on this processor (AVX512-BF16 or AMX); tried once with a small product.
// fp32 ones run on every processor.
bool has_bf16_brgemm();

// c [m, n] fp32 (row length ldc) = or += a [m, k] (row-major, row length lda) times the packed b (row length
// ldb). bf16 needs has_bf16_brgemm() and an even k.
void brgemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
            float* c, int64_t ldc, bool accumulate);
void brgemm(int64_t m, int64_t n, int64_t k, const at::BFloat16* a, int64_t lda, const at::BFloat16* b,
            int64_t ldb, float* c, int64_t ldc, bool accumulate);

// Gives back the thread's hardware state (AMX tiles) on leaving a parallel region that called brgemm.
struct BrgemmScope {
    BrgemmScope() = default;
    BrgemmScope(const BrgemmScope&) = delete;
    BrgemmScope& operator=(const BrgemmScope&) = delete;
    ~BrgemmScope();
};

// b as brgemm's right operand: out[k][ld] for fp32, out[k / 2][ld][2] for bf16.
void pack_b(const MatrixView<float>& b, float* out, int64_t ld);
void pack_b(const MatrixView<at::BFloat16>& b, at::BFloat16* out, int64_t ld);
void pack_b(const MatrixView<at::BFloat16>& b, float* out, int64_t ld);  // widened

// a as brgemm's left operand: row-major out[m][ld], columns up to padded_k filled with zeros.
void pack_a(const MatrixView<float>& a, float* out, int64_t ld);
void pack_a(const MatrixView<at::BFloat16>& a, at::BFloat16* out, int64_t ld);
void pack_a(const MatrixView<at::BFloat16>& a, float* out, int64_t ld);  // widened

}  // namespace speedrun::ops::cpu
