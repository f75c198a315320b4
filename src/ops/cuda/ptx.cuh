#pragma once
// Instructions that C++ has no words for. The tests' emulation (tests/cuda_emulation) has a file of this name
// with the same functions in C++.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace speedrun::cuda {

template <class W>
__device__ __forceinline__ W load_word(const W* from) {
    return *from;
}
// A whole word into the device's memory: plain assignments are sometimes taken apart, into a store for each
// of its elements.
__device__ __forceinline__ void store_word(uint4* to, uint4 word) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(word.x), "r"(word.y), "r"(word.z),
                 "r"(word.w)
                 : "memory");
}
__device__ __forceinline__ void store_word(uint2* to, uint2 word) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(word.x), "r"(word.y) : "memory");
}
__device__ __forceinline__ void store_word(uint32_t* to, uint32_t word) {
    asm volatile("st.global.b32 [%0], %1;" ::"l"(to), "r"(word) : "memory");
}
__device__ __forceinline__ void store_word(uint16_t* to, uint16_t word) {
    *to = word;
}
__device__ __forceinline__ void store_word(uint8_t* to, uint8_t word) {
    *to = word;
}

// One of the four words in 16 bytes of shared memory.
__device__ __forceinline__ uint32_t word_of(const uint4& words, int index) {
    return reinterpret_cast<const uint32_t*>(&words)[index];
}

// Four of the bytes of a (0 to 3) and b (4 to 7), which the digits of `selector` name from the last one on.
__device__ __forceinline__ uint32_t permuted(uint32_t a, uint32_t b, uint32_t selector) {
    return __byte_perm(a, b, selector);
}

// 2^x and 1 / x, within 2 units of fp32's last place each; subnormal results are 0.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// A warp's product of bf16 fragments on tensor cores (sm_80 and later). Of lane l, with g = l / 4 and t = l %
// 4, each register holds two neighbours:
//   Left  [16 rows, 16 k]     (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)
//   Right [16 k, 8 columns]   (2t, g), (2t + 8, g)
//   Sums  [16 rows, 8 cols]   (g, 2t), (g + 8, 2t), each two floats
struct Left {
    uint32_t at[4];
};
struct Right {
    uint32_t at[2];
};
struct Sums {
    float at[4];
};

// Four matrices of 8 rows of 16 bytes each in shared memory: lane l names row l % 8 of matrix l / 8, and gets
// of each matrix, as one register, the two neighbours that begin at (g, 2t).
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const __nv_bfloat16* row) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

// sums += left right
__device__ __forceinline__ void multiply_add(Sums& sums, const Left& left, const Right& right) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums.at[0]), "+f"(sums.at[1]), "+f"(sums.at[2]), "+f"(sums.at[3])
        : "r"(left.at[0]), "r"(left.at[1]), "r"(left.at[2]), "r"(left.at[3]), "r"(right.at[0]),
          "r"(right.at[1]));
}

}  // namespace speedrun::cuda
