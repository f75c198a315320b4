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

void check_coef_net(const at::Tensor& h, const at::Tensor& w, const at::Tensor& values) {
    check(h.dim() == 2 && w.dim() == 2 && w.size(1) == h.size(1), "coef_net: h is [T, K], w [N, K]");
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

void coef_net(const at::Tensor& h, const at::Tensor& w, const at::Tensor& b, double scale,
              const at::Tensor& values) {
    if (h.is_meta()) return;
    if (has_kernel(h, w)) return cuda::coef_net(cuda::gpu_of(h), h, w, b, scale, values);
    if (!cpu::fused(h)) return reference::coef_net(h, w, b, scale, values);
    check_coef_net(h, w, values);
    const int64_t tokens = h.size(0), hidden = h.size(1), outputs = w.size(0);
    const std::vector<float> weights = cpu::as_floats(w, "coef_net: w"),
                             biases = cpu::as_floats(b, "coef_net: b");
    float* to = cpu::flat<float>(values, tokens * outputs, "coef_net: values");
    cpu::with_dtype(h.scalar_type(), [&]<class T>(T) {
        const T* from = cpu::flat<const T>(h, tokens * hidden, "coef_net: h");
        const cpu::Chunks chunks(tokens, outputs * hidden);
        chunks.for_each([&](int64_t, int64_t begin, int64_t end) {
            std::vector<float> gelu(static_cast<size_t>(hidden));
            for (int64_t t = begin; t < end; ++t) {
                gelu_row(from + t * hidden, gelu.data(), nullptr, hidden);
                for (int64_t j = 0; j < outputs; ++j)
                    to[t * outputs + j] = (cpu::dot(weights.data() + j * hidden, gelu.data(), hidden) +
                                           biases[static_cast<size_t>(j)]) *
                                          static_cast<float>(scale);
            }
        });
    });
}

void coef_net_backward(const at::Tensor& dvalues, const at::Tensor& h, const at::Tensor& w, double scale,
                       const at::Tensor& dh, const at::Tensor& dw, const at::Tensor& db) {
    if (h.is_meta()) return;
    if (has_kernel(h, w)) return cuda::coef_net_backward(cuda::gpu_of(h), dvalues, h, w, scale, dh, dw, db);
    if (!cpu::fused(h)) return reference::coef_net_backward(dvalues, h, w, scale, dh, dw, db);
    check_coef_net(h, w, dvalues);
    const int64_t tokens = h.size(0), hidden = h.size(1), outputs = w.size(0);
    const std::vector<float> weights = cpu::as_floats(w, "coef_net_backward: w");
    const float* above = cpu::flat<const float>(dvalues, tokens * outputs, "coef_net_backward: dvalues");
    const cpu::Chunks chunks(tokens, outputs * hidden);
    cpu::Partials sums(chunks, outputs * hidden + outputs);
    cpu::with_dtype(h.scalar_type(), [&]<class T>(T) {
        const T* from = cpu::flat<const T>(h, tokens * hidden, "coef_net_backward: h");
        T* to = cpu::flat<T>(dh, tokens * hidden, "coef_net_backward: dh");
        chunks.for_each([&](int64_t chunk, int64_t begin, int64_t end) {
            std::vector<float> row(static_cast<size_t>(3 * hidden));
            float *gelu = row.data(), *slope = gelu + hidden, *dgelu = slope + hidden;
            float* const own = sums[chunk];
            for (int64_t t = begin; t < end; ++t) {
                gelu_row(from + t * hidden, gelu, slope, hidden);
                std::fill_n(dgelu, hidden, 0.0F);
                for (int64_t j = 0; j < outputs; ++j) {
                    const float dz = above[t * outputs + j] * static_cast<float>(scale);
                    cpu::add_scaled(weights.data() + j * hidden, dz, dgelu, hidden);
                    cpu::add_scaled(gelu, dz, own + j * hidden, hidden);
                    own[outputs * hidden + j] += dz;
                }
                for (int64_t k = 0; k < hidden; ++k) cpu::store(to[t * hidden + k], dgelu[k] * slope[k]);
            }
        });
    });
    sums.add_to(dw, 0, w.numel(), "coef_net_backward: dw");
    sums.add_to(db, w.numel(), outputs, "coef_net_backward: db");
}

void reference::coef_net(const at::Tensor& h, const at::Tensor& w, const at::Tensor& b, double scale,
                         const at::Tensor& values) {
    check_coef_net(h, w, values);
    const auto dtype = values.scalar_type();
    values.copy_((at::mm(at::gelu(wide(h)), w.to(dtype).t()) + b.to(dtype)) * scale);
}

void reference::coef_net_backward(const at::Tensor& dvalues, const at::Tensor& h, const at::Tensor& w,
                                  double scale, const at::Tensor& dh, const at::Tensor& dw,
                                  const at::Tensor& db) {
    check_coef_net(h, w, dvalues);
    const at::Tensor from = wide(h), dz = dvalues * scale;
    dh.copy_(at::gelu_backward(at::mm(dz, w.to(dz.scalar_type())), from));
    dw.copy_(wide(dw) + at::mm(dz.t(), at::gelu(from)));
    db.copy_(wide(db) + dz.sum(0));
}

namespace cuda {
namespace {

raw::CoefNet net_of(const at::Tensor& h, const at::Tensor& w, double scale, const at::Tensor& values) {
    check_coef_net(h, w, values);
    raw::CoefNet net;
    net.h = flat(h, h.numel(), "coef_net: h");
    net.w = flat(w, w.numel(), "coef_net: w");
    net.outputs = w.size(0);
    net.scale = static_cast<float>(scale);
    return net;
}

}  // namespace

void coef_net(const Gpu& gpu, const at::Tensor& h, const at::Tensor& w, const at::Tensor& b, double scale,
              const at::Tensor& values) {
    raw::CoefNet net = net_of(h, w, scale, values);
    check(b.scalar_type() == w.scalar_type(), "coef_net: w and b are of one dtype");
    net.b = flat(b, w.size(0), "coef_net: b");
    gpu.kernels.coef_net(net, floats(values, values.numel(), "coef_net: values"), h.size(0), gpu.stream);
}

void coef_net_backward(const Gpu& gpu, const at::Tensor& dvalues, const at::Tensor& h, const at::Tensor& w,
                       double scale, const at::Tensor& dh, const at::Tensor& dw, const at::Tensor& db) {
    raw::CoefNet net = net_of(h, w, scale, dvalues);
    net.dh = flat(dh, h.numel(), "coef_net_backward: dh");
    net.dw = flat(dw, w.numel(), "coef_net_backward: dw");
    net.db = flat(db, w.size(0), "coef_net_backward: db");
    check(dh.scalar_type() == h.scalar_type(), "coef_net_backward: dh is of h's dtype");
    const at::Tensor partials = at::empty({raw::kPartialSets * (w.numel() + w.size(0))}, dvalues.options());
    gpu.kernels.coef_net_backward(net, floats(dvalues, dvalues.numel(), "coef_net_backward: dvalues"),
                                  partials.data_ptr<float>(), h.size(0), gpu.stream);
}

}  // namespace cuda
}  // namespace speedrun::ops
