#include "ops/xsa.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/cpu/partials.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/weights.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

constexpr auto smallest_square = static_cast<float>(xsa_smallest_square);

void check_xsa(const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha) {
    check(x.dim() == 3 && v.sizes() == x.sizes() && v.scalar_type() == x.scalar_type(),
          "xsa: x and v are [T, H, D] of one dtype");
    check(alpha.numel() == x.size(1), "xsa: alpha has a number a head");
}

std::vector<float> shares(const at::Tensor& alpha) {
    std::vector<float> found = cpu::as_floats(alpha, "xsa: alpha");
    for (float& one : found) one = std::tanh(one);
    return found;
}

// y = x - share (x . v) / |v|^2 v
template <class T>
void head(const T* x, const T* v, float share, T* y, int64_t d) {
    const float square = std::max(cpu::dot(v, v, d), smallest_square);
    const float take = share * (cpu::dot(x, v, d) / square);
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) cpu::store(y[i], cpu::load(x[i]) - take * cpu::load(v[i]));
}

// With r = (x . v) / |v|^2 and q = (dy . v) / |v|^2: dx = dy - share q v, dv = -share (r dy + q x - 2 r q v),
// the last term only where |v|^2 counts. Returns d share = -r (dy . v).
template <class T>
float head_backward(const T* dy, const T* x, const T* v, float share, T* dx, T* dv, int64_t d) {
    const float own = cpu::dot(v, v, d), square = std::max(own, smallest_square);
    const float above = cpu::dot(dy, v, d), r = cpu::dot(x, v, d) / square, q = above / square;
    const float turned = own > smallest_square ? 2 * r * q : 0;
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) {
        const float g = cpu::load(dy[i]), value = cpu::load(v[i]);
        cpu::store(dv[i], -share * (r * g + q * cpu::load(x[i]) - turned * value));
        cpu::store(dx[i], g - share * q * value);
    }
    return -r * above;
}

}  // namespace

void xsa(const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha, const at::Tensor& y) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::xsa(cuda::gpu_of(x), x, v, alpha, y);
    if (!cpu::fused(x)) return reference::xsa(x, v, alpha, y);
    check_xsa(x, v, alpha);
    const int64_t heads = x.size(1), d = x.size(2);
    const std::vector<float> share = shares(alpha);
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(x, x.sizes(), "xsa: x"),
                   values = cpu::rows<const T>(v, x.sizes(), "xsa: v");
        const auto to = cpu::rows<T>(y, x.sizes(), "xsa: y");
        cpu::for_each_row(x.size(0), heads * d, [&](int64_t t) {
            for (int64_t h = 0; h < heads; ++h)
                head(from[t] + h * d, values[t] + h * d, share[static_cast<size_t>(h)], to[t] + h * d, d);
        });
    });
}

void xsa_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha,
                  const at::Tensor& dx, const at::Tensor& dv, const at::Tensor& dalpha) {
    if (x.is_meta()) return;
    if (cuda::fused(x)) return cuda::xsa_backward(cuda::gpu_of(x), dy, x, v, alpha, dx, dv, dalpha);
    if (!cpu::fused(x)) return reference::xsa_backward(dy, x, v, alpha, dx, dv, dalpha);
    check_xsa(x, v, alpha);
    const int64_t heads = x.size(1), d = x.size(2);
    const std::vector<float> share = shares(alpha);
    const cpu::Chunks chunks(x.size(0), heads * d);
    cpu::Partials sums(chunks, heads);
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto above = cpu::rows<const T>(dy, x.sizes(), "xsa_backward: dy"),
                   from = cpu::rows<const T>(x, x.sizes(), "xsa_backward: x"),
                   values = cpu::rows<const T>(v, x.sizes(), "xsa_backward: v");
        const auto to = cpu::rows<T>(dx, x.sizes(), "xsa_backward: dx"),
                   to_values = cpu::rows<T>(dv, x.sizes(), "xsa_backward: dv");
        chunks.for_each([&](int64_t chunk, int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; ++t)
                for (int64_t h = 0; h < heads; ++h) {
                    const float own = share[static_cast<size_t>(h)];
                    const float dshare = head_backward(above[t] + h * d, from[t] + h * d, values[t] + h * d,
                                                       own, to[t] + h * d, to_values[t] + h * d, d);
                    sums[chunk][h] += dshare * (1 - own * own);
                }
        });
    });
    sums.add_to(dalpha, 0, heads, "xsa_backward: dalpha");
}

namespace {

// Of every head, [T, H, 1]: share = tanh(alpha), |v|^2, and whether it counts.
struct Wide {
    Wide(const at::Tensor& values, const at::Tensor& alpha)
        : v(reference::wide(values)),
          share(at::tanh(alpha.to(v.scalar_type())).view({1, -1, 1})),
          own((v * v).sum(-1, true)),
          square(own.clamp_min(xsa_smallest_square)) {}
    at::Tensor v, share, own, square;
};

}  // namespace

void reference::xsa(const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha, const at::Tensor& y) {
    check_xsa(x, v, alpha);
    const Wide at(v, alpha);
    const at::Tensor from = wide(x);
    y.copy_(from - at.share * (from * at.v).sum(-1, true) / at.square * at.v);
}

void reference::xsa_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& v,
                             const at::Tensor& alpha, const at::Tensor& dx, const at::Tensor& dv,
                             const at::Tensor& dalpha) {
    check_xsa(x, v, alpha);
    const Wide at(v, alpha);
    const at::Tensor from = wide(x), g = wide(dy);
    const at::Tensor above = (g * at.v).sum(-1, true), r = (from * at.v).sum(-1, true) / at.square,
                     q = above / at.square;
    const at::Tensor turned = 2 * r * q * at.own.gt(xsa_smallest_square);
    dv.copy_(-at.share * (r * g + q * from - turned * at.v));
    dx.copy_(g - at.share * q * at.v);
    const at::Tensor sums = (-r * above * (1 - at.share.square())).sum(0).view(dalpha.sizes());
    dalpha.copy_(wide(dalpha) + sums);
}

namespace cuda {

void xsa(const Gpu& gpu, const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha,
         const at::Tensor& y) {
    check_xsa(x, v, alpha);
    gpu.kernels.xsa(rows(x, x.sizes(), "xsa: x"), rows(v, x.sizes(), "xsa: v"),
                    flat(alpha, x.size(1), "xsa: alpha"), rows(y, x.sizes(), "xsa: y"), x.size(1),
                    shape_of(x), gpu.stream);
}

void xsa_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& v,
                  const at::Tensor& alpha, const at::Tensor& dx, const at::Tensor& dv,
                  const at::Tensor& dalpha) {
    check_xsa(x, v, alpha);
    const int64_t heads = x.size(1);
    const raw::XsaBackward xsa{
        rows(dy, x.sizes(), "xsa_backward: dy"),     rows(x, x.sizes(), "xsa_backward: x"),
        rows(v, x.sizes(), "xsa_backward: v"),       rows(dx, x.sizes(), "xsa_backward: dx"),
        rows(dv, x.sizes(), "xsa_backward: dv"),     flat(alpha, heads, "xsa_backward: alpha"),
        flat(dalpha, heads, "xsa_backward: dalpha"), heads};
    const at::Tensor partials = at::empty({raw::kPartialSets * heads}, x.options().dtype(at::kFloat));
    gpu.kernels.xsa_backward(xsa, partials.data_ptr<float>(), shape_of(x), gpu.stream);
}

}  // namespace cuda
}  // namespace speedrun::ops
