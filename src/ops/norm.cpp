#include "ops/norm.h"

#include <ATen/ATen.h>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"

namespace speedrun::ops {

void reference::rms_norm(const at::Tensor& x, double eps, const at::Tensor& y, const at::Tensor& rstd) {
    const at::Tensor wide_x = wide(x);
    rstd.copy_((wide_x.square().mean(-1) + eps).rsqrt());
    y.copy_(wide_x * rstd.unsqueeze(-1));
}

void reference::rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd,
                                  const at::Tensor& dx, bool accumulate) {
    const at::Tensor wide_x = wide(x), wide_dy = wide(dy), r = rstd.unsqueeze(-1);
    const at::Tensor gradient = r * (wide_dy - wide_x * r.square() * (wide_dy * wide_x).mean(-1, true));
    dx.copy_(accumulate ? wide(dx) + gradient : gradient);
}

void rms_norm(const at::Tensor& x, double eps, const at::Tensor& y, const at::Tensor& rstd) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::rms_norm(cuda::gpu_of(x), x, eps, y, rstd);
    if (!cpu::fused(x)) return reference::rms_norm(x, eps, y, rstd);
    const int64_t d = cpu::row_length(x);
    float* r = cpu::flat<float>(rstd, x.size(0), "rms_norm: rstd");
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(x, x.sizes(), "rms_norm: x");
        const auto to = cpu::rows<T>(y, x.sizes(), "rms_norm: y");
        cpu::for_each_row(x.size(0), d, [&](int64_t t) {
            r[t] = cpu::reciprocal_rms(from[t], d, static_cast<float>(eps));
            cpu::scale(from[t], r[t], to[t], d);
        });
    });
}

namespace {

template <class T>
void rms_norm_backward_row(const T* dy, const T* x, float rstd, T* dx, int64_t d, bool accumulate) {
    const float slope = rstd * rstd * rstd * cpu::dot(dy, x, d) / static_cast<float>(d);
    if (!accumulate) {
#pragma omp simd
        for (int64_t i = 0; i < d; ++i) cpu::store(dx[i], rstd * cpu::load(dy[i]) - slope * cpu::load(x[i]));
    } else {
#pragma omp simd
        for (int64_t i = 0; i < d; ++i) {
            cpu::store(dx[i], cpu::load(dx[i]) + (rstd * cpu::load(dy[i]) - slope * cpu::load(x[i])));
        }
    }
}

}  // namespace

void rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd,
                       const at::Tensor& dx, bool accumulate) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::rms_norm_backward(cuda::gpu_of(x), dy, x, rstd, dx, accumulate);
    if (!cpu::fused(x)) return reference::rms_norm_backward(dy, x, rstd, dx, accumulate);
    const int64_t d = cpu::row_length(x);
    const float* r = cpu::flat<const float>(rstd, x.size(0), "rms_norm_backward: rstd");
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto above = cpu::rows<const T>(dy, x.sizes(), "rms_norm_backward: dy");
        const auto from = cpu::rows<const T>(x, x.sizes(), "rms_norm_backward: x");
        const auto to = cpu::rows<T>(dx, x.sizes(), "rms_norm_backward: dx");
        cpu::for_each_row(x.size(0), d, [&](int64_t t) {
            rms_norm_backward_row(above[t], from[t], r[t], to[t], d, accumulate);
        });
    });
}

void cuda::rms_norm(const Gpu& gpu, const at::Tensor& x, double eps, const at::Tensor& y,
                    const at::Tensor& rstd) {
    gpu.kernels.rms_norm(rows(x, x.sizes(), "rms_norm: x"), static_cast<float>(eps),
                         rows(y, x.sizes(), "rms_norm: y"), floats(rstd, x.size(0), "rms_norm: rstd"),
                         shape_of(x), gpu.stream);
}

void cuda::rms_norm_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x,
                             const at::Tensor& rstd, const at::Tensor& dx, bool accumulate) {
    gpu.kernels.rms_norm_backward(
        rows(dy, x.sizes(), "rms_norm_backward: dy"), rows(x, x.sizes(), "rms_norm_backward: x"),
        floats(rstd, x.size(0), "rms_norm_backward: rstd"), rows(dx, x.sizes(), "rms_norm_backward: dx"),
        accumulate, shape_of(x), gpu.stream);
}

}  // namespace speedrun::ops
