#pragma once
// CUDA's kernel language for one CPU thread, enough for the kernels in src/ops/cuda: the very .cu files that
// nvcc compiles are compiled as C++ with this folder in front of the toolkit's, so that their arithmetic,
// their indices and their barriers are tested on machines without a GPU. The threads of a block are fibers
// that take turns; blocks follow each other. A barrier that not all threads of a block or warp reach is an
// error, as is a thread that reads a shuffle others have left.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ thread_local  // one block at a time, and all its threads are one thread
#define __align__(bytes) __attribute__((aligned(bytes)))

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(8) float2 {
    float x, y;
};

struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

using cudaStream_t = struct CudaStream*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr {
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
    cudaDevAttrMaxSharedMemoryPerBlockOptin
};
namespace cuda_emulation {
constexpr int kSharedBytes = 227 << 10;  // of a block, as a Hopper has
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor   ? 9
             : attribute == cudaDevAttrComputeCapabilityMinor ? 0
                                                              : cuda_emulation::kSharedBytes;
    return cudaSuccess;
}
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess ? "no error" : "invalid configuration";
}

namespace cuda_emulation {

// Runs `thread` once for every thread of every block. Throws where the threads wait for each other for ever.
void run(dim3 grid, dim3 block, const std::function<void()>& thread);
void block_barrier();
// Gives `bytes` of `value` to lane threadIdx ^ lane_mask (of the linear thread number), and returns its in
// place.
void exchange(void* value, size_t bytes, int source_lane);
int lane();

// Of the thread that calls: a copy of its current group, whose last `zeros` bytes are zeros; the group's end;
// all groups but the last few.
void copy_later(void* to, const void* from, size_t bytes, size_t zeros);
void commit_copies();
void finish_copies(size_t unfinished_groups);

// Of a kernel: what cudaFuncSetAttribute allowed it, and 48 KB before.
void allow_shared(const void* kernel, size_t bytes);
size_t allowed_shared(const void* kernel);

template <class... P, size_t... I>
void run_with(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments, std::index_sequence<I...>) {
    run(grid, block, [&] { kernel(*static_cast<std::remove_reference_t<P>*>(arguments[I])...); });
}

}  // namespace cuda_emulation

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int bytes) {
    if (bytes > cuda_emulation::kSharedBytes) return cudaErrorInvalidConfiguration;
    cuda_emulation::allow_shared(reinterpret_cast<const void*>(kernel), static_cast<size_t>(bytes));
    return cudaSuccess;
}

template <class... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t) {
    if (grid.x == 0 || block.x * block.y * block.z > 1024 || grid.y > 65535 ||
        shared > cuda_emulation::allowed_shared(reinterpret_cast<const void*>(kernel)))
        return cudaErrorInvalidConfiguration;
    cuda_emulation::run_with(kernel, grid, block, arguments, std::index_sequence_for<P...>{});
    return cudaSuccess;
}

inline void __syncthreads() {
    cuda_emulation::block_barrier();
}

template <class T>
T __shfl_sync(unsigned, T value, int source_lane) {
    cuda_emulation::exchange(&value, sizeof value, source_lane);
    return value;
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
    return __shfl_sync(mask, value, cuda_emulation::lane() ^ lane_mask);
}

inline void __syncwarp() {
    __shfl_sync(0xffffffffU, 0, 0);
}

inline float rsqrtf(float x) {
    return 1.0F / std::sqrt(x);
}
inline float __expf(float x) {
    return std::exp(x);
}
inline float __fdividef(float x, float y) {
    return x / y;
}
