#pragma once
// What the kernels share. A row is worked on by one warp, lane by lane in packs of 16 bytes where all rows
// begin on such a boundary, else element by element.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "ops/cuda/kernels.h"

namespace speedrun::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kWarpsPerBlock = 4;
inline constexpr unsigned kAllLanes = 0xffffffffU;

__device__ __forceinline__ float load(float x) {
    return x;
}
__device__ __forceinline__ float load(__nv_bfloat16 x) {
    return __bfloat162float(x);
}
__device__ __forceinline__ void store(float& to, float x) {
    to = x;
}
__device__ __forceinline__ void store(__nv_bfloat16& to, float x) {
    to = __float2bfloat16_rn(x);
}

// N neighbouring elements, moved at once.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T at[N];
};

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
    return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <int N, class T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& pack) {
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Every lane gets the same sum, formed in the same order.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
    return x;
}

__device__ __forceinline__ float sigmoid(float x) {
    return 1.0F / (1.0F + expf(-x));
}

__device__ __forceinline__ double now(const Number& number) {
    return number.place ? *number.place : number.value;
}
__device__ __forceinline__ float rounded(const Number& number) {
    return static_cast<float>(now(number));
}

// This thread's warp among all warps of the launch, and how many there are.
__device__ __forceinline__ int64_t warp_index() {
    return static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
}
__device__ __forceinline__ int64_t warp_count() {
    return static_cast<int64_t>(gridDim.x) * (blockDim.x / kWarp);
}
__device__ __forceinline__ int lane_index() {
    return static_cast<int>(threadIdx.x) % kWarp;
}

// A row of a typed matrix.
template <class T>
struct RowsOf {
    T* data;
    int64_t stride;
    __device__ T* operator[](int64_t row) const { return data + row * stride; }
};
template <class T>
RowsOf<T> rows_of(const Rows& rows) {
    return {static_cast<T*>(rows.data), rows.stride};
}

// ---- on the host

template <class... P>
void launch(void (*kernel)(P...), int64_t blocks, int threads, Stream stream,
            std::type_identity_t<P>... arguments) {
    if (blocks == 0) return;
    void* addresses[] = {static_cast<void*>(&arguments)...};
    const cudaError_t error =
        cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)),
                         addresses, 0, static_cast<cudaStream_t>(stream));
    if (error != cudaSuccess)
        throw std::runtime_error(std::string("a kernel did not start: ") + cudaGetErrorString(error));
}

inline int64_t blocks_for(int64_t items, int64_t per_block) {
    return (items + per_block - 1) / per_block;
}

// One warp a row.
inline int64_t row_blocks(int64_t rows) {
    return blocks_for(rows, kWarpsPerBlock);
}
// The same for kernels with partial sums: each warp takes every kPartialSets-th row.
inline int64_t partial_blocks(int64_t rows) {
    const int64_t all = row_blocks(rows);
    return all < kPartialSets / kWarpsPerBlock ? all : kPartialSets / kWarpsPerBlock;
}

// Calls body(T{}) with the element type.
template <class Body>
void with_scalar(Scalar type, const Body& body) {
    if (type == Scalar::f32) return body(float{});
    body(__nv_bfloat16{});
}

// Whether packs of 16 bytes do for rows of `cols` elements.
inline bool packs(const Rows& rows, int64_t cols) {
    const int64_t size = rows.type == Scalar::f32 ? 4 : 2;
    return rows.data == nullptr || (reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 &&
                                    rows.stride * size % 16 == 0 && cols * size % 16 == 0);
}

// Calls body(T{}, std::integral_constant<int, N>): the element type and how many are moved at once.
template <class Body>
void with_packs(Scalar type, bool packed, const Body& body) {
    with_scalar(type, [&]<class T>(T zero) {
        if (packed)
            body(zero, std::integral_constant<int, 16 / static_cast<int>(sizeof(T))>{});
        else
            body(zero, std::integral_constant<int, 1>{});
    });
}

// to[i] += the sum of partials[k * width + i] over k < sets, rounded once; in partials.cu.
void add_partials(const float* partials, int64_t sets, int64_t width, Flat to, Stream stream);

}  // namespace speedrun::cuda
