#include "ops/relu2.h"

#include <ATen/ATen.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "ops/cpu/convert.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"

namespace speedrun::ops {

void reference::relu2(const at::Tensor& x, const at::Tensor& y) {
    y.copy_(wide(x).relu().square());
}

void reference::relu2_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx) {
    dx.copy_(2 * wide(x).relu() * wide(dy));
}

void reference::relu2_backward_of_output(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& dx) {
    dx.copy_(2 * wide(y).sqrt() * wide(dy));
}

namespace {

// max(x, 0), a NaN staying one as in ATen's relu. Without a branch, which GCC would not undo to vectorise.
inline float relu(float x) {
    const uint32_t keep = 0U - static_cast<uint32_t>(!(x < 0));
    return std::bit_cast<float>(std::bit_cast<uint32_t>(x) & keep);
}

template <class T>
void relu2_row(const T* x, T* y, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) {
        const float positive = relu(cpu::load(x[i]));
        cpu::store(y[i], positive * positive);
    }
}

template <class T>
void relu2_backward_row(const T* dy, const T* x, T* dx, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) cpu::store(dx[i], 2 * relu(cpu::load(x[i])) * cpu::load(dy[i]));
}

template <class T>
void relu2_backward_of_output_row(const T* dy, const T* y, T* dx, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) cpu::store(dx[i], 2 * std::sqrt(cpu::load(y[i])) * cpu::load(dy[i]));
}

}  // namespace

void relu2(const at::Tensor& x, const at::Tensor& y) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::relu2(cuda::gpu_of(x), x, y);
    if (!cpu::fused(x)) return reference::relu2(x, y);
    const int64_t d = cpu::row_length(x);
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(x, x.sizes(), "relu2: x");
        const auto to = cpu::rows<T>(y, x.sizes(), "relu2: y");
        cpu::for_each_row(x.size(0), d, [&](int64_t t) { relu2_row(from[t], to[t], d); });
    });
}

void relu2_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::relu2_backward(cuda::gpu_of(x), dy, x, dx);
    if (!cpu::fused(x)) return reference::relu2_backward(dy, x, dx);
    const int64_t d = cpu::row_length(x);
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto above = cpu::rows<const T>(dy, x.sizes(), "relu2_backward: dy");
        const auto from = cpu::rows<const T>(x, x.sizes(), "relu2_backward: x");
        const auto to = cpu::rows<T>(dx, x.sizes(), "relu2_backward: dx");
        cpu::for_each_row(x.size(0), d, [&](int64_t t) { relu2_backward_row(above[t], from[t], to[t], d); });
    });
}

void relu2_backward_of_output(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& dx) {
    if (y.is_meta()) return;
    if (cuda::fused(y)) return cuda::relu2_backward_of_output(cuda::gpu_of(y), dy, y, dx);
    if (!cpu::fused(y)) return reference::relu2_backward_of_output(dy, y, dx);
    const int64_t d = cpu::row_length(y);
    cpu::with_dtype(y.scalar_type(), [&]<class T>(T) {
        const auto above = cpu::rows<const T>(dy, y.sizes(), "relu2_backward_of_output: dy");
        const auto from = cpu::rows<const T>(y, y.sizes(), "relu2_backward_of_output: y");
        const auto to = cpu::rows<T>(dx, y.sizes(), "relu2_backward_of_output: dx");
        cpu::for_each_row(y.size(0), d,
                          [&](int64_t t) { relu2_backward_of_output_row(above[t], from[t], to[t], d); });
    });
}

void cuda::relu2(const Gpu& gpu, const at::Tensor& x, const at::Tensor& y) {
    gpu.kernels.relu2(rows(x, x.sizes(), "relu2: x"), rows(y, x.sizes(), "relu2: y"), shape_of(x),
                      gpu.stream);
}

void cuda::relu2_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx) {
    gpu.kernels.relu2_backward(rows(dy, x.sizes(), "relu2_backward: dy"),
                               rows(x, x.sizes(), "relu2_backward: x"),
                               rows(dx, x.sizes(), "relu2_backward: dx"), shape_of(x), gpu.stream);
}

void cuda::relu2_backward_of_output(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& y,
                                    const at::Tensor& dx) {
    gpu.kernels.relu2_backward_of_output(rows(dy, y.sizes(), "relu2_backward_of_output: dy"),
                                         rows(y, y.sizes(), "relu2_backward_of_output: y"),
                                         rows(dx, y.sizes(), "relu2_backward_of_output: dx"), shape_of(y),
                                         gpu.stream);
}

}  // namespace speedrun::ops
