#pragma once
// src/ops/cuda/ptx.cuh in C++, as PTX's manual describes each instruction.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstring>
#include <stdexcept>

namespace speedrun::cuda {

inline void expect_aligned(const void* address, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
        throw std::logic_error("an address that is not aligned");
}

template <class W>
W load_word(const W* from) {
    expect_aligned(from, sizeof(W));
    W word;
    std::memcpy(&word, from, sizeof word);
    return word;
}
template <class W>
void store_word(W* to, W word) {
    expect_aligned(to, sizeof(W));
    std::memcpy(to, &word, sizeof word);
}

inline uint32_t word_of(const uint4& words, int index) {
    uint32_t word;
    std::memcpy(&word, reinterpret_cast<const char*>(&words) + 4 * index, sizeof word);
    return word;
}

inline uint32_t permuted(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = a | static_cast<uint64_t>(b) << 32;
    uint32_t chosen = 0;
    for (int i = 0; i < 4; ++i)
        chosen |= static_cast<uint32_t>(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return chosen;
}

inline float exp2_fast(float x) {
    return std::exp2(x);
}
inline float reciprocal(float x) {
    return 1.0F / x;
}

struct Left {
    uint32_t at[4];
};
struct Right {
    uint32_t at[2];
};
struct Sums {
    float at[4];
};

inline void load_matrices(uint32_t (&to)[4], const __nv_bfloat16* row) {
    expect_aligned(row, 16);
    const int lane = cuda_emulation::lane();
    for (int matrix = 0; matrix < 4; ++matrix) {
        const __nv_bfloat16* const found = __shfl_sync(0xffffffffU, row, 8 * matrix + lane / 4);
        std::memcpy(&to[matrix], found + lane % 4 * 2, sizeof to[matrix]);
    }
    __syncwarp();
}

namespace emulation {

// One of the two neighbours in a register.
inline float element(uint32_t pair, int which) {
    return __bfloat162float({static_cast<uint16_t>(which == 0 ? pair : pair >> 16)});
}

// Row g of 8 or, with `second`, g + 8; `given` is of the lane that holds its columns 2t, 2t + 1, 2t + 8 and
// 2t + 9.
inline float left(const Left (&given)[4], bool second, int k) {
    return element(given[k % 8 / 2].at[(second ? 1 : 0) + k / 8 * 2], k % 2);
}
inline float right(const Right (&given)[4], int k) {
    return element(given[k % 8 / 2].at[k / 8], k % 2);
}

}  // namespace emulation

inline void multiply_add(Sums& sums, const Left& left, const Right& right) {
    const int group = cuda_emulation::lane() / 4, pair = cuda_emulation::lane() % 4;
    Left rows[4];
    Right columns[2][4];
    for (int lane = 0; lane < 4; ++lane) {
        rows[lane] = __shfl_sync(0xffffffffU, left, 4 * group + lane);
        for (int column = 0; column < 2; ++column)
            columns[column][lane] = __shfl_sync(0xffffffffU, right, 4 * (2 * pair + column) + lane);
    }
    for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 16; ++k)
            sums.at[i] += emulation::left(rows, i >= 2, k) * emulation::right(columns[i % 2], k);
}

}  // namespace speedrun::cuda
