#include "ops/xsa.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>
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
    check(alpha.size(-1) == x.size(1) && (alpha.dim() == 1 || alpha.size(0) == x.size(0)),
          "xsa: alpha has a number a head, or one a token and head");
}

// Whether each token has numbers of its own.
bool by_token(const at::Tensor& alpha) {
    return alpha.dim() == 2;
}

// tanh(alpha) of a token and head.
class Shares {
  public:
    explicit Shares(const at::Tensor& alpha) {
        if (by_token(alpha)) {
            rows_ = cpu::rows<const float>(alpha, alpha.sizes(), "xsa: alpha");
            return;
        }
        of_heads_ = cpu::as_floats(alpha, "xsa: alpha");
        for (float& one : of_heads_) one = std::tanh(one);
    }
    float operator()(int64_t token, int64_t head) const {
        return of_heads_.empty() ? std::tanh((*rows_)[token][head]) : of_heads_[static_cast<size_t>(head)];
    }

  private:
    std::vector<float> of_heads_;
    std::optional<cpu::Rows<const float>> rows_;
};

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
    const Shares share(alpha);
    cpu::with_dtype(x.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(x, x.sizes(), "xsa: x"),
                   values = cpu::rows<const T>(v, x.sizes(), "xsa: v");
        const auto to = cpu::rows<T>(y, x.sizes(), "xsa: y");
        cpu::for_each_row(x.size(0), heads * d, [&](int64_t t) {
            for (int64_t h = 0; h < heads; ++h)
                head(from[t] + h * d, values[t] + h * d, share(t, h), to[t] + h * d, d);
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
    const Shares share(alpha);
    const bool of_tokens = by_token(alpha);
    std::optional<cpu::Rows<float>> dalpha_rows;
    if (of_tokens) dalpha_rows = cpu::rows<float>(dalpha, alpha.sizes(), "xsa_backward: dalpha");
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
                    const float own = share(t, h);
                    const float dshare = head_backward(above[t] + h * d, from[t] + h * d, values[t] + h * d,
                                                       own, to[t] + h * d, to_values[t] + h * d, d);
                    (of_tokens ? (*dalpha_rows)[t][h] : sums[chunk][h]) += dshare * (1 - own * own);
                }
        });
    });
    if (!of_tokens) sums.add_to(dalpha, 0, heads, "xsa_backward: dalpha");
}

namespace {

// Of every head, [T, H, 1]: share = tanh(alpha), |v|^2, and whether it counts.
struct Wide {
    Wide(const at::Tensor& values, const at::Tensor& alpha)
        : v(reference::wide(values)),
          share(at::tanh(alpha.to(v.scalar_type())).view({by_token(alpha) ? v.size(0) : 1, -1, 1})),
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
    const at::Tensor terms = (-r * above * (1 - at.share.square())).squeeze(-1);  // [T, H]
    dalpha.copy_(wide(dalpha) + (by_token(alpha) ? terms : terms.sum(0)));
}

namespace cuda {
namespace {

raw::XsaAlpha alpha_of(const at::Tensor& alpha, int64_t heads) {
    if (!by_token(alpha)) return {flat(alpha, heads, "xsa: alpha"), 0};
    check(alpha.scalar_type() == at::kFloat && alpha.stride(1) == 1, "xsa: alpha of tokens is fp32 rows");
    return {{alpha.data_ptr<float>(), raw::Scalar::f32}, alpha.stride(0)};
}

}  // namespace

void xsa(const Gpu& gpu, const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha,
         const at::Tensor& y) {
    check_xsa(x, v, alpha);
    gpu.kernels.xsa(rows(x, x.sizes(), "xsa: x"), rows(v, x.sizes(), "xsa: v"), alpha_of(alpha, x.size(1)),
                    rows(y, x.sizes(), "xsa: y"), x.size(1), shape_of(x), gpu.stream);
}

void xsa_backward(const Gpu& gpu, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& v,
                  const at::Tensor& alpha, const at::Tensor& dx, const at::Tensor& dv,
                  const at::Tensor& dalpha) {
    check_xsa(x, v, alpha);
    const int64_t heads = x.size(1);
    const raw::XsaBackward xsa{rows(dy, x.sizes(), "xsa_backward: dy"),
                               rows(x, x.sizes(), "xsa_backward: x"),
                               rows(v, x.sizes(), "xsa_backward: v"),
                               rows(dx, x.sizes(), "xsa_backward: dx"),
                               rows(dv, x.sizes(), "xsa_backward: dv"),
                               alpha_of(alpha, heads),
                               alpha_of(dalpha, heads),
                               heads};
    const at::Tensor partials = at::empty({raw::kPartialSets * heads}, x.options().dtype(at::kFloat));
    gpu.kernels.xsa_backward(xsa, partials.data_ptr<float>(), shape_of(x), gpu.stream);
}

}  // namespace cuda
}  // namespace speedrun::ops
