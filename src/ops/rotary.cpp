#include "ops/rotary.h"

#include <ATen/ATen.h>

#include <array>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

void reference::qk_norm_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double eps,
                               const at::Tensor& y, const at::Tensor& rstd) {
    const at::Tensor wide_x = wide(x);
    rstd.copy_((wide_x.square().mean(-1) + eps).rsqrt());
    const auto n = (wide_x * rstd.unsqueeze(-1)).chunk(2, -1);
    const at::Tensor c = cos.narrow(0, 0, x.size(0)).unsqueeze(1),
                     s = sin.narrow(0, 0, x.size(0)).unsqueeze(1);
    y.copy_(at::cat({n[0] * c + n[1] * s, n[1] * c - n[0] * s}, -1));
}

void reference::qk_norm_rotary_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& cos,
                                        const at::Tensor& sin, const at::Tensor& rstd, const at::Tensor& dx) {
    const auto above = wide(dy).chunk(2, -1);
    const at::Tensor c = cos.narrow(0, 0, x.size(0)).unsqueeze(1),
                     s = sin.narrow(0, 0, x.size(0)).unsqueeze(1);
    const at::Tensor dn = at::cat({above[0] * c - above[1] * s, above[0] * s + above[1] * c}, -1);
    const at::Tensor wide_x = wide(x), r = rstd.unsqueeze(-1);
    dx.copy_(r * (dn - wide_x * r.square() * (dn * wide_x).mean(-1, true)));
}

namespace {

constexpr int64_t max_half = 512;  // pairs in a head

// cos and sin of one position as fp32.
struct Angles {
    std::array<float, max_half> cos, sin;
};

// Reads rows of the cos and sin tables.
template <class Table>
class AngleRows {
  public:
    AngleRows(const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& x) : half_(x.size(2) / 2) {
        check(x.dim() == 3 && x.size(2) % 2 == 0 && half_ <= max_half,
              "rotary: x is [T, H, D], D even, at most 1024");
        check(cos.dim() == 2 && cos.size(0) >= x.size(0) && cos.size(1) == half_,
              "rotary: cos is [T' >= T, D/2]");
        cos_ = cpu::rows<const Table>(cos, cos.sizes(), "rotary: cos");
        sin_ = cpu::rows<const Table>(sin, cos.sizes(), "rotary: sin has the shape and dtype of cos");
    }

    void read(int64_t position, Angles& to) const {
        cpu::scale(cos_[position], 1.0F, to.cos.data(), half_);
        cpu::scale(sin_[position], 1.0F, to.sin.data(), half_);
    }

  private:
    int64_t half_;
    cpu::Rows<const Table> cos_, sin_;
};

template <class T>
void rotate_head(const T* x, float rstd, const Angles& angles, T* y, int64_t half) {
    const T* x2 = x + half;
    T* y2 = y + half;
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        const float n1 = rstd * cpu::load(x[i]), n2 = rstd * cpu::load(x2[i]);
        cpu::store(y[i], n1 * angles.cos[i] + n2 * angles.sin[i]);
        cpu::store(y2[i], n2 * angles.cos[i] - n1 * angles.sin[i]);
    }
}

// The gradient of the rotation (its transpose), then of the norm.
template <class T>
void rotate_head_backward(const T* dy, const T* x, float rstd, const Angles& angles, T* dx, int64_t half) {
    const T *dy2 = dy + half, *x2 = x + half;
    T* dx2 = dx + half;
    std::array<float, max_half> dn1, dn2;
    float sum1 = 0, sum2 = 0;
#pragma omp simd reduction(+ : sum1, sum2)
    for (int64_t i = 0; i < half; ++i) {
        const float d1 = cpu::load(dy[i]), d2 = cpu::load(dy2[i]);
        dn1[i] = d1 * angles.cos[i] - d2 * angles.sin[i];
        dn2[i] = d1 * angles.sin[i] + d2 * angles.cos[i];
        sum1 += dn1[i] * cpu::load(x[i]);
        sum2 += dn2[i] * cpu::load(x2[i]);
    }
    const float slope = rstd * rstd * rstd * (sum1 + sum2) / static_cast<float>(2 * half);
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        cpu::store(dx[i], rstd * dn1[i] - slope * cpu::load(x[i]));
        cpu::store(dx2[i], rstd * dn2[i] - slope * cpu::load(x2[i]));
    }
}

// Calls body(t, angles of position t) for every token, in parallel.
template <class Body>
void for_each_position(const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& x, const Body& body) {
    cpu::with_dtype(cos.scalar_type(), [&]<class Table>(Table) {
        const AngleRows<Table> table(cos, sin, x);
        cpu::for_each_row(x.size(0), cpu::row_length(x), [&](int64_t t) {
            Angles angles;
            table.read(t, angles);
            body(t, angles);
        });
    });
}

}  // namespace

void qk_norm_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double eps,
                    const at::Tensor& y, const at::Tensor& rstd) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::qk_norm_rotary(cuda::gpu_of(x), x, cos, sin, eps, y, rstd);
    if (!cpu::fused(x)) return reference::qk_norm_rotary(x, cos, sin, eps, y, rstd);
    check(x.dim() == 3, "qk_norm_rotary: x is [T, H, D]");
    const int64_t heads = x.size(1), d = x.size(2);
    float* r = cpu::flat<float>(rstd, x.size(0) * heads, "qk_norm_rotary: rstd");
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(x, x.sizes(), "qk_norm_rotary: x");
        const auto to = cpu::rows<T>(y, x.sizes(), "qk_norm_rotary: y");
        for_each_position(cos, sin, x, [&](int64_t t, const Angles& angles) {
            for (int64_t h = 0; h < heads; ++h) {
                const T* head = from[t] + h * d;
                const float scale = cpu::reciprocal_rms(head, d, static_cast<float>(eps));
                r[t * heads + h] = scale;
                rotate_head(head, scale, angles, to[t] + h * d, d / 2);
            }
        });
    });
}

void qk_norm_rotary_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& cos,
                             const at::Tensor& sin, const at::Tensor& rstd, const at::Tensor& dx) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::qk_norm_rotary_backward(cuda::gpu_of(x), dy, x, cos, sin, rstd, dx);
    if (!cpu::fused(x)) return reference::qk_norm_rotary_backward(dy, x, cos, sin, rstd, dx);
    check(x.dim() == 3, "qk_norm_rotary_backward: x is [T, H, D]");
    const int64_t heads = x.size(1), d = x.size(2);
    const float* r = cpu::flat<const float>(rstd, x.size(0) * heads, "qk_norm_rotary_backward: rstd");
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto above = cpu::rows<const T>(dy, x.sizes(), "qk_norm_rotary_backward: dy");
        const auto from = cpu::rows<const T>(x, x.sizes(), "qk_norm_rotary_backward: x");
        const auto to = cpu::rows<T>(dx, x.sizes(), "qk_norm_rotary_backward: dx");
        for_each_position(cos, sin, x, [&](int64_t t, const Angles& angles) {
            for (int64_t h = 0; h < heads; ++h) {
                const int64_t at = h * d;
                rotate_head_backward(above[t] + at, from[t] + at, r[t * heads + h], angles, to[t] + at,
                                     d / 2);
            }
        });
    });
}

namespace cuda {
namespace {

raw::Rotary rotary_of(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
    check(x.dim() == 3 && x.size(2) % 2 == 0 && cos.dim() == 2 && cos.size(0) >= x.size(0) &&
              cos.size(1) == x.size(2) / 2,
          "rotary: x is [T, H, D], D even, cos [T' >= T, D/2]");
    check(cos.scalar_type() == sin.scalar_type(), "rotary: cos and sin of one dtype");
    return {rows(cos, cos.sizes(), "rotary: cos"), rows(sin, cos.sizes(), "rotary: sin"), x.size(1)};
}

}  // namespace

void qk_norm_rotary(const Gpu& gpu, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                    double eps, const at::Tensor& y, const at::Tensor& rstd) {
    gpu.kernels.qk_norm_rotary(rows(x, x.sizes(), "qk_norm_rotary: x"), rotary_of(x, cos, sin),
                               static_cast<float>(eps), rows(y, x.sizes(), "qk_norm_rotary: y"),
                               floats(rstd, x.size(0) * x.size(1), "qk_norm_rotary: rstd"), shape_of(x),
                               gpu.stream);
}

void qk_norm_rotary_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& cos,
                             const at::Tensor& sin, const at::Tensor& rstd, const at::Tensor& dx) {
    gpu.kernels.qk_norm_rotary_backward(
        rows(dy, x.sizes(), "qk_norm_rotary_backward: dy"), rows(x, x.sizes(), "qk_norm_rotary_backward: x"),
        rotary_of(x, cos, sin), floats(rstd, x.size(0) * x.size(1), "qk_norm_rotary_backward: rstd"),
        rows(dx, x.sizes(), "qk_norm_rotary_backward: dx"), shape_of(x), gpu.stream);
}

}  // namespace cuda

}  // namespace speedrun::ops
