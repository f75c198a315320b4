#include "ops/coef_net.h"

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

// The sizes that the kernels for GPUs take; others go to ATen there.
bool has_kernel(const at::Tensor& h, const at::Tensor& w) {
    return cuda::fused(h) && h.size(1) == cuda::raw::kNetHidden && w.size(0) <= cuda::raw::kMostNetOutputs;
}

constexpr float root_half = 0.70710678118654752F, density_at_0 = 0.39894228040143268F;

void check_coef_net(const at::Tensor& h, const CoefNetWeights& weights, const at::Tensor& values) {
    const auto& [w, b, scale] = weights;
    check(h.dim() == 2 && w.dim() == 2 && w.size(1) == h.size(1), "coef_net: h is [T, K], w [N, K]");
    check(b.numel() == w.size(0) && scale.numel() == 1, "coef_net: b is [N], scale one number");
    check(values.dim() == 2 && values.size(0) == h.size(0) && values.size(1) == w.size(0),
          "coef_net: values are [T, N]");
}

// x Phi(x), and its derivative Phi(x) + x phi(x).
struct Gelu {
    explicit Gelu(float x) {
        const float below = 0.5F * (1 + std::erf(x * root_half));
        value = x * below;
        slope = below + x * density_at_0 * std::exp(-0.5F * x * x);
    }
    float value, slope;
};

template <class T>
void gelu_row(const T* h, float* value, float* slope, int64_t n) {
    for (int64_t k = 0; k < n; ++k) {
        const Gelu gelu(cpu::load(h[k]));
        value[k] = gelu.value;
        if (slope) slope[k] = gelu.slope;
    }
}

}  // namespace

void coef_net(const at::Tensor& h, const CoefNetWeights& weights, const at::Tensor& values) {
    if (h.is_meta()) return;
    if (has_kernel(h, weights.w)) return cuda::coef_net(cuda::gpu_of(h), h, weights, values);
    if (!cpu::fused(h)) return reference::coef_net(h, weights, values);
    check_coef_net(h, weights, values);
    const int64_t tokens = h.size(0), hidden = h.size(1), outputs = weights.w.size(0);
    const std::vector<float> w = cpu::as_floats(weights.w, "coef_net: w"),
                             b = cpu::as_floats(weights.b, "coef_net: b");
    const float scale = *cpu::flat<const float>(weights.scale, 1, "coef_net: scale");
    float* to = cpu::flat<float>(values, tokens * outputs, "coef_net: values");
    cpu::with_dtype(h.scalar_type(), [&]<class T>(T) {
        const T* from = cpu::flat<const T>(h, tokens * hidden, "coef_net: h");
        const cpu::Chunks chunks(tokens, outputs * hidden);
        chunks.for_each([&](int64_t, int64_t begin, int64_t end) {
            std::vector<float> gelu(static_cast<size_t>(hidden));
            for (int64_t t = begin; t < end; ++t) {
                gelu_row(from + t * hidden, gelu.data(), nullptr, hidden);
                for (int64_t j = 0; j < outputs; ++j)
                    to[t * outputs + j] =
                        (cpu::dot(w.data() + j * hidden, gelu.data(), hidden) + b[static_cast<size_t>(j)]) *
                        scale;
            }
        });
    });
}

void coef_net_backward(const at::Tensor& dvalues, const at::Tensor& h, const CoefNetWeights& weights,
                       const at::Tensor& dh, const CoefNetWeights& grads) {
    if (h.is_meta()) return;
    if (has_kernel(h, weights.w))
        return cuda::coef_net_backward(cuda::gpu_of(h), dvalues, h, weights, dh, grads);
    if (!cpu::fused(h)) return reference::coef_net_backward(dvalues, h, weights, dh, grads);
    check_coef_net(h, weights, dvalues);
    const int64_t tokens = h.size(0), hidden = h.size(1), outputs = weights.w.size(0);
    const std::vector<float> w = cpu::as_floats(weights.w, "coef_net_backward: w"),
                             b = cpu::as_floats(weights.b, "coef_net_backward: b");
    const float scale = *cpu::flat<const float>(weights.scale, 1, "coef_net_backward: scale");
    const float* above = cpu::flat<const float>(dvalues, tokens * outputs, "coef_net_backward: dvalues");
    const bool wants_scale = grads.scale.defined();
    const cpu::Chunks chunks(tokens, outputs * hidden);
    cpu::Partials sums(chunks, outputs * hidden + outputs + 1);  // of w, b and scale
    cpu::with_dtype(h.scalar_type(), [&]<class T>(T) {
        const T* from = cpu::flat<const T>(h, tokens * hidden, "coef_net_backward: h");
        T* to = cpu::flat<T>(dh, tokens * hidden, "coef_net_backward: dh");
        chunks.for_each([&](int64_t chunk, int64_t begin, int64_t end) {
            std::vector<float> row(static_cast<size_t>(3 * hidden));
            float *gelu = row.data(), *slope = gelu + hidden, *dgelu = slope + hidden;
            float *const dw = sums[chunk], *const db = dw + outputs * hidden, *const dscale = db + outputs;
            for (int64_t t = begin; t < end; ++t) {
                gelu_row(from + t * hidden, gelu, slope, hidden);
                std::fill_n(dgelu, hidden, 0.0F);
                for (int64_t j = 0; j < outputs; ++j) {
                    const float* const own = w.data() + j * hidden;
                    const float dvalue = above[t * outputs + j], dz = dvalue * scale;
                    cpu::add_scaled(own, dz, dgelu, hidden);
                    cpu::add_scaled(gelu, dz, dw + j * hidden, hidden);
                    db[j] += dz;
                    if (wants_scale)
                        *dscale += dvalue * (cpu::dot(own, gelu, hidden) + b[static_cast<size_t>(j)]);
                }
                for (int64_t k = 0; k < hidden; ++k) cpu::store(to[t * hidden + k], dgelu[k] * slope[k]);
            }
        });
    });
    const int64_t cells = outputs * hidden;
    sums.add_to(grads.w, 0, cells, "coef_net_backward: dw");
    sums.add_to(grads.b, cells, outputs, "coef_net_backward: db");
    if (wants_scale) sums.add_to(grads.scale, cells + outputs, 1, "coef_net_backward: dscale");
}

namespace {

// gelu(h) w^T + b, in the dtype of the values.
at::Tensor before_scale(const at::Tensor& h, const CoefNetWeights& weights, at::ScalarType dtype) {
    return at::mm(at::gelu(reference::wide(h)), weights.w.to(dtype).t()) + weights.b.to(dtype);
}

}  // namespace

void reference::coef_net(const at::Tensor& h, const CoefNetWeights& weights, const at::Tensor& values) {
    check_coef_net(h, weights, values);
    const auto dtype = values.scalar_type();
    values.copy_(before_scale(h, weights, dtype) * weights.scale.to(dtype));
}

void reference::coef_net_backward(const at::Tensor& dvalues, const at::Tensor& h,
                                  const CoefNetWeights& weights, const at::Tensor& dh,
                                  const CoefNetWeights& grads) {
    check_coef_net(h, weights, dvalues);
    const auto dtype = dvalues.scalar_type();
    const at::Tensor from = wide(h), dz = dvalues * weights.scale.to(dtype);
    dh.copy_(at::gelu_backward(at::mm(dz, weights.w.to(dtype)), from));
    grads.w.copy_(wide(grads.w) + at::mm(dz.t(), at::gelu(from)));
    grads.b.copy_(wide(grads.b) + dz.sum(0));
    if (grads.scale.defined())
        grads.scale.copy_(wide(grads.scale) + (dvalues * before_scale(h, weights, dtype)).sum());
}

namespace cuda {
namespace {

raw::CoefNet net_of(const at::Tensor& h, const CoefNetWeights& weights, const at::Tensor& values) {
    check_coef_net(h, weights, values);
    check(weights.b.scalar_type() == weights.w.scalar_type(), "coef_net: w and b are of one dtype");
    raw::CoefNet net;
    net.h = flat(h, h.numel(), "coef_net: h");
    net.w = flat(weights.w, weights.w.numel(), "coef_net: w");
    net.b = flat(weights.b, weights.w.size(0), "coef_net: b");
    net.scale = floats(weights.scale, 1, "coef_net: scale");
    net.outputs = weights.w.size(0);
    return net;
}

}  // namespace

void coef_net(const Gpu& gpu, const at::Tensor& h, const CoefNetWeights& weights, const at::Tensor& values) {
    gpu.kernels.coef_net(net_of(h, weights, values), floats(values, values.numel(), "coef_net: values"),
                         h.size(0), gpu.stream);
}

void coef_net_backward(const Gpu& gpu, const at::Tensor& dvalues, const at::Tensor& h,
                       const CoefNetWeights& weights, const at::Tensor& dh, const CoefNetWeights& grads) {
    raw::CoefNet net = net_of(h, weights, dvalues);
    net.dh = flat(dh, h.numel(), "coef_net_backward: dh");
    net.dw = flat(grads.w, weights.w.numel(), "coef_net_backward: dw");
    net.db = flat(grads.b, weights.w.size(0), "coef_net_backward: db");
    if (grads.scale.defined()) net.dscale = flat(grads.scale, 1, "coef_net_backward: dscale");
    check(dh.scalar_type() == h.scalar_type(), "coef_net_backward: dh is of h's dtype");
    const int64_t numbers = weights.w.numel() + weights.w.size(0) + 1;
    const at::Tensor partials = at::empty({raw::kPartialSets * numbers}, dvalues.options());
    gpu.kernels.coef_net_backward(net, floats(dvalues, dvalues.numel(), "coef_net_backward: dvalues"),
                                  partials.data_ptr<float>(), h.size(0), gpu.stream);
}

}  // namespace cuda
}  // namespace speedrun::ops
