// Packing of brgemm's operands. Pairs of bf16 along K are moved as one 32-bit word, so that the
// transpositions of both dtypes are transpositions of 8x8 words in AVX2 registers.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "ops/cpu/brgemm.h"

namespace speedrun::ops::cpu {

namespace {

using Block = __m256i[8];

__m256i load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
void store(void* p, __m256i v) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}

// Transposes 8x8 words.
inline void transpose_words(Block& r) {
    Block t;
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    Block u;
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
    }
}

// out[j][i] = in[i][j] for words of 4 bytes; strides in bytes.
void transpose_words(const char* in, int64_t rows, int64_t cols, int64_t in_stride, char* out,
                     int64_t out_stride) {
    const auto word = [&](int64_t i, int64_t j) {
        std::memcpy(out + j * out_stride + i * 4, in + i * in_stride + j * 4, 4);
    };
    const int64_t full_rows = rows / 8 * 8, full_cols = cols / 8 * 8;
    for (int64_t i = 0; i < full_rows; i += 8) {
        for (int64_t j = 0; j < full_cols; j += 8) {
            Block r;
            for (int k = 0; k < 8; ++k) r[k] = load(in + (i + k) * in_stride + j * 4);
            transpose_words(r);
            for (int k = 0; k < 8; ++k) store(out + (j + k) * out_stride + i * 4, r[k]);
        }
        for (int64_t j = full_cols; j < cols; ++j) {
            for (int64_t k = i; k < i + 8; ++k) word(k, j);
        }
    }
    for (int64_t i = full_rows; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) word(i, j);
    }
}

// Eight pairs (lo[j], hi[j]) as words.
inline __m256i interleave8(const at::BFloat16* lo, const at::BFloat16* hi) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(lo));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(hi));
    return _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
}

// out[j] = (lo[j], hi[j])
void interleave(const at::BFloat16* lo, const at::BFloat16* hi, int64_t n, at::BFloat16* out) {
    int64_t j = 0;
    for (; j + 8 <= n; j += 8) store(out + 2 * j, interleave8(lo + j, hi + j));
    for (; j < n; ++j) {
        out[2 * j] = lo[j];
        out[2 * j + 1] = hi[j];
    }
}

// out[j][i] = in[i][j] for bf16; strides in elements.
void transpose_halves(const at::BFloat16* in, int64_t rows, int64_t cols, int64_t in_stride,
                      at::BFloat16* out, int64_t out_stride) {
    const int64_t full_rows = rows / 16 * 16, full_cols = cols / 8 * 8;
    for (int64_t i = 0; i < full_rows; i += 16) {
        for (int64_t j = 0; j < full_cols; j += 8) {
            Block r;
            for (int k = 0; k < 8; ++k) {
                const at::BFloat16* pair = in + (i + 2 * k) * in_stride + j;
                r[k] = interleave8(pair, pair + in_stride);
            }
            transpose_words(r);
            for (int k = 0; k < 8; ++k) store(out + (j + k) * out_stride + i, r[k]);
        }
        for (int64_t j = full_cols; j < cols; ++j) {
            for (int64_t k = i; k < i + 16; ++k) out[j * out_stride + k] = in[k * in_stride + j];
        }
    }
    for (int64_t i = full_rows; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) out[j * out_stride + i] = in[i * in_stride + j];
    }
}

void transpose(const float* in, int64_t rows, int64_t cols, int64_t in_stride, float* out,
               int64_t out_stride) {
    transpose_words(reinterpret_cast<const char*>(in), rows, cols, 4 * in_stride,
                    reinterpret_cast<char*>(out), 4 * out_stride);
}
void transpose(const at::BFloat16* in, int64_t rows, int64_t cols, int64_t in_stride, at::BFloat16* out,
               int64_t out_stride) {
    transpose_halves(in, rows, cols, in_stride, out, out_stride);
}

// Eight bf16 as fp32.
inline __m256i widen8(const at::BFloat16* in) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    return _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
}

void transpose(const at::BFloat16* in, int64_t rows, int64_t cols, int64_t in_stride, float* out,
               int64_t out_stride) {
    const auto one = [&](int64_t i, int64_t j) {
        out[j * out_stride + i] = static_cast<float>(in[i * in_stride + j]);
    };
    const int64_t full_rows = rows / 8 * 8, full_cols = cols / 8 * 8;
    for (int64_t i = 0; i < full_rows; i += 8) {
        for (int64_t j = 0; j < full_cols; j += 8) {
            Block r;
            for (int k = 0; k < 8; ++k) r[k] = widen8(in + (i + k) * in_stride + j);
            transpose_words(r);
            for (int k = 0; k < 8; ++k) store(out + (j + k) * out_stride + i, r[k]);
        }
        for (int64_t j = full_cols; j < cols; ++j)
            for (int64_t k = i; k < i + 8; ++k) one(k, j);
    }
    for (int64_t i = full_rows; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j) one(i, j);
}

void copy_row(const at::BFloat16* in, int64_t n, float* out) {
    int64_t j = 0;
    for (; j + 8 <= n; j += 8) store(out + j, widen8(in + j));
    for (; j < n; ++j) out[j] = static_cast<float>(in[j]);
}
template <class T>
void copy_row(const T* in, int64_t n, T* out) {
    std::copy_n(in, n, out);
}

// out row-major [rows][ld]
template <class T, class P>
void to_row_major(const MatrixView<T>& in, P* out, int64_t ld) {
    if (in.col_stride == 1) {
        for (int64_t i = 0; i < in.rows; ++i) copy_row(in.data + i * in.row_stride, in.cols, out + i * ld);
    } else {
        transpose(in.data, in.cols, in.rows, in.col_stride, out, ld);
    }
}

template <class T>
void pack_rows(const MatrixView<T>& a, T* out, int64_t ld) {
    to_row_major(a, out, ld);
    for (int64_t k = a.cols; k < padded_k<T>(a.cols); ++k) {
        for (int64_t i = 0; i < a.rows; ++i) out[i * ld + k] = T(0.0F);
    }
}

}  // namespace

void pack_a(const MatrixView<float>& a, float* out, int64_t ld) {
    pack_rows(a, out, ld);
}
void pack_a(const MatrixView<at::BFloat16>& a, at::BFloat16* out, int64_t ld) {
    pack_rows(a, out, ld);
}
void pack_a(const MatrixView<at::BFloat16>& a, float* out, int64_t ld) {
    to_row_major(a, out, ld);
}

void pack_b(const MatrixView<float>& b, float* out, int64_t ld) {
    to_row_major(b, out, ld);
}
void pack_b(const MatrixView<at::BFloat16>& b, float* out, int64_t ld) {
    to_row_major(b, out, ld);
}

void pack_b(const MatrixView<at::BFloat16>& b, at::BFloat16* out, int64_t ld) {
    const int64_t pairs = b.rows / 2;
    if (b.col_stride == 1) {
        for (int64_t p = 0; p < pairs; ++p) {
            const at::BFloat16* row = b.data + 2 * p * b.row_stride;
            interleave(row, row + b.row_stride, b.cols, out + 2 * p * ld);
        }
    } else {
        transpose_words(reinterpret_cast<const char*>(b.data), b.cols, pairs, 2 * b.col_stride,
                        reinterpret_cast<char*>(out), 4 * ld);
    }
    if (b.rows % 2 == 0) return;
    for (int64_t j = 0; j < b.cols; ++j) {
        out[2 * (pairs * ld + j)] = b.data[2 * pairs * b.row_stride + j * b.col_stride];
        out[2 * (pairs * ld + j) + 1] = at::BFloat16(0.0F);
    }
}

}  // namespace speedrun::ops::cpu
