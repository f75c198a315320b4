#pragma once
// What the kernels share. A row is worked on by one warp, lane by lane in packs of 16 bytes where all rows
// begin on such a boundary, else element by element.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "ops/cuda/ptx.cuh"
#include "ops/cuda/registration.h"

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

__device__ __forceinline__ uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
__device__ __forceinline__ float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// N neighbouring elements, moved at once.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T at[N];
};

template <int bytes>
struct WordOf;
template <>
struct WordOf<16> {
    using type = uint4;
};
template <>
struct WordOf<8> {
    using type = uint2;
};
template <>
struct WordOf<4> {
    using type = uint32_t;
};
template <>
struct WordOf<2> {
    using type = uint16_t;
};
template <>
struct WordOf<1> {
    using type = uint8_t;
};
template <class P>
using Word = typename WordOf<sizeof(P)>::type;

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
    using W = Word<Pack<T, N>>;
    const W word = load_word(reinterpret_cast<const W*>(from));
    Pack<T, N> pack;
    memcpy(&pack, &word, sizeof word);
    return pack;
}
// Into the device's memory.
template <int N, class T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& pack) {
    using W = Word<Pack<T, N>>;
    W word;
    memcpy(&word, &pack, sizeof word);
    store_word(reinterpret_cast<W*>(to), word);
}

// Every lane of a group of neighbours, by default of the warp, gets the same sum, formed in the same order.
template <int kLanes = kWarp>
__device__ __forceinline__ float group_sum(float x) {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
    return x;
}
__device__ __forceinline__ float warp_sum(float x) {
    return group_sum(x);
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

// The sums of a block's warps, to[0 .. width): number k * 32 + lane of them is sums[k].
template <int kPerLane>
__device__ __forceinline__ void store_block_sums(const float (&sums)[kPerLane], int64_t width, float* to) {
    __shared__ float parts[kWarpsPerBlock][kPerLane * kWarp];
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) parts[threadIdx.x / kWarp][k * kWarp + lane_index()] = sums[k];
    __syncthreads();
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = 0;
#pragma unroll
        for (int warp = 0; warp < kWarpsPerBlock; ++warp) sum += parts[warp][i];
        to[i] = sum;
    }
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

// What a block was launched with by launch_with_shared.
extern __shared__ __align__(128) unsigned char dynamic_shared[];

// ---- on the host

// Memory beyond the 48 KB that every kernel may have is asked for first.
template <class... P>
void launch_with_shared(void (*kernel)(P...), int64_t blocks, int threads, int shared_bytes, Stream stream,
                        std::type_identity_t<P>... arguments) {
    if (blocks == 0) return;
    void* addresses[] = {static_cast<void*>(&arguments)...};
    cudaError_t error = cudaSuccess;
    if (shared_bytes > 48 << 10)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error == cudaSuccess)
        error = cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)),
                                 dim3(static_cast<unsigned>(threads)), addresses,
                                 static_cast<size_t>(shared_bytes), static_cast<cudaStream_t>(stream));
    if (error != cudaSuccess)
        throw std::runtime_error(std::string("a kernel did not start: ") + cudaGetErrorString(error));
}

template <class... P>
void launch(void (*kernel)(P...), int64_t blocks, int threads, Stream stream,
            std::type_identity_t<P>... arguments) {
    launch_with_shared<P...>(kernel, blocks, threads, 0, stream, arguments...);
}

// Of the GPU in use.
inline int device_attribute(cudaDeviceAttr attribute) {
    int device = 0, value = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&value, attribute, device) != cudaSuccess)
        throw std::runtime_error("the GPU does not say what it is");
    return value;
}

inline int64_t blocks_for(int64_t items, int64_t per_block) {
    return (items + per_block - 1) / per_block;
}

// One warp a row.
inline int64_t row_blocks(int64_t rows) {
    return blocks_for(rows, kWarpsPerBlock);
}
// The same for kernels with partial sums, whose blocks go on to further rows.
inline int64_t partial_blocks(int64_t rows) {
    return std::min(row_blocks(rows), kPartialSets);
}

// Calls body(T{}) with the element type.
template <class Body>
void with_scalar(Scalar type, const Body& body) {
    if (type == Scalar::f32) return body(float{});
    body(__nv_bfloat16{});
}

// Whether rows of `cols` elements can be moved in packs of so many; none counts as one that can.
inline bool packs_of(int64_t elements, const Rows& rows, int64_t cols) {
    const int64_t bytes = elements * (rows.type == Scalar::f32 ? 4 : 2);
    return rows.data == nullptr || (reinterpret_cast<uintptr_t>(rows.data) % bytes == 0 &&
                                    rows.stride % elements == 0 && cols % elements == 0);
}
// In packs of 16 bytes.
inline bool packs(const Rows& rows, int64_t cols) {
    return packs_of(rows.type == Scalar::f32 ? 4 : 8, rows, cols);
}

// Whether `count` elements of each can be moved in fours; null counts as one that can.
inline bool fours(int64_t count, std::initializer_list<Flat> parts) {
    return count % 4 == 0 && std::ranges::all_of(parts, [](const Flat& part) {
               return reinterpret_cast<uintptr_t>(part.data) % (part.type == Scalar::f32 ? 16 : 8) == 0;
           });
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

// to[i] += the sum of partials[k * stride + i] over k < sets, rounded once, for i < width; in partials.cu.
void add_partials(const float* partials, int64_t sets, int64_t stride, int64_t width, Flat to, Stream stream);

}  // namespace speedrun::cuda
