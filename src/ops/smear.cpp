#include "ops/smear.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/cpu/partials.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/weights.h"
#include "ops/cuda/fused.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

void reference::smear(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda,
                      const at::Tensor& out, const at::Tensor& gate) {
    const at::Tensor wide_e = wide(e), weights = w.to(gate.scalar_type()).reshape({-1});
    gate.copy_(at::sigmoid(at::mv(wide_e.narrow(1, 0, weights.size(0)), weights)));
    gate.narrow(0, 0, 1).zero_();
    const at::Tensor factor = (gate * lambda.reshape({1})).unsqueeze(-1);
    out.copy_(wide_e + factor * wide_e.roll(1, 0));
}

void reference::smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& w,
                               const at::Tensor& lambda, const at::Tensor& gate, const at::Tensor& de,
                               const at::Tensor& dw, const at::Tensor& dlambda) {
    const at::Tensor above = wide(dout), wide_e = wide(e),
                     weights = w.to(gate.scalar_type()).reshape({1, -1});
    const int64_t n = weights.size(1);
    const at::Tensor scale = lambda.reshape({1});
    const at::Tensor inner = (above * wide_e.roll(1, 0)).sum(-1);
    const at::Tensor dlogit = (scale * inner * gate * (1 - gate)).unsqueeze(-1);
    at::Tensor total = above + ((gate * scale).unsqueeze(-1) * above).roll(-1, 0);
    total.narrow(1, 0, n) += dlogit * weights;
    de.copy_(total);
    dw.copy_(wide(dw) + (dlogit * wide_e.narrow(1, 0, n)).sum(0).view(dw.sizes()));
    dlambda.add_((gate * inner).sum().view(dlambda.sizes()));
}

namespace {

template <class T>
void smear_row(const T* e, const T* previous, float factor, T* out, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) cpu::store(out[i], cpu::load(e[i]) + factor * cpu::load(previous[i]));
}

// The first n channels of de, which also carry the gate's gradient.
template <class T>
void smear_backward_gate(const T* dout, const T* next, float factor, const float* w, float dlogit, T* de,
                         int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        cpu::store(de[i], cpu::load(dout[i]) + factor * cpu::load(next[i]) + dlogit * w[i]);
    }
}

}  // namespace

void smear(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda, const at::Tensor& out,
           const at::Tensor& gate) {
    if (e.is_meta()) return;
    if (cuda::fused(e)) return cuda::on_device_of(e).smear(e, w, lambda, out, gate);
    if (!cpu::fused(e)) return reference::smear(e, w, lambda, out, gate);
    const int64_t d = cpu::row_length(e), n = w.numel();
    check(e.dim() == 2 && n <= d, "smear: e is [T, d], w [n], n <= d");
    const std::vector<float> weights = cpu::as_floats(w, "smear: w");
    const float scale = *cpu::flat<const float>(lambda, 1, "smear: lambda");
    float* g = cpu::flat<float>(gate, e.size(0), "smear: gate");
    cpu::with_dtype(e.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(e, e.sizes(), "smear: e");
        const auto to = cpu::rows<T>(out, e.sizes(), "smear: out");
        cpu::for_each_row(e.size(0), d, [&](int64_t t) {
            const T* row = from[t];
            g[t] = t == 0 ? 0.0F : 1.0F / (1.0F + std::exp(-cpu::dot(weights.data(), row, n)));
            smear_row(row, t == 0 ? row : from[t - 1], scale * g[t], to[t], d);
        });
    });
}

void smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& w,
                    const at::Tensor& lambda, const at::Tensor& gate, const at::Tensor& de,
                    const at::Tensor& dw, const at::Tensor& dlambda) {
    if (e.is_meta()) return;
    if (cuda::fused(e))
        return cuda::on_device_of(e).smear_backward(dout, e, w, lambda, gate, de, dw, dlambda);
    if (!cpu::fused(e)) return reference::smear_backward(dout, e, w, lambda, gate, de, dw, dlambda);
    const int64_t last = e.size(0) - 1, d = cpu::row_length(e), n = w.numel();
    check(e.dim() == 2 && n <= d, "smear_backward: e is [T, d], w [n], n <= d");
    const std::vector<float> weights = cpu::as_floats(w, "smear: w");
    const float scale = *cpu::flat<const float>(lambda, 1, "smear_backward: lambda");
    const float* g = cpu::flat<const float>(gate, e.size(0), "smear_backward: gate");
    const cpu::Chunks chunks(e.size(0), d);
    cpu::Partials sums(chunks, n + 1);  // dw, then dlambda
    cpu::with_dtype(e.scalar_type(), [&]<class T>(T) {
        const auto above = cpu::rows<const T>(dout, e.sizes(), "smear_backward: dout");
        const auto from = cpu::rows<const T>(e, e.sizes(), "smear_backward: e");
        const auto to = cpu::rows<T>(de, e.sizes(), "smear_backward: de");
        chunks.for_each([&](int64_t chunk, int64_t begin, int64_t end) {
            float* sum = sums[chunk];
            for (int64_t t = begin; t < end; ++t) {
                const float inner = t == 0 ? 0.0F : cpu::dot(above[t], from[t - 1], d);
                const float dlogit = scale * inner * g[t] * (1 - g[t]);
                const float factor = t == last ? 0.0F : scale * g[t + 1];
                const T* next = above[t == last ? t : t + 1];
                smear_backward_gate(above[t], next, factor, weights.data(), dlogit, to[t], n);
                smear_row(above[t] + n, next + n, factor, to[t] + n, d - n);
                cpu::add_scaled(from[t], dlogit, sum, n);
                sum[n] += g[t] * inner;
            }
        });
    });
    sums.add_to(dw, 0, n, "smear_backward: dw");
    sums.add_to(dlambda, n, 1, "smear_backward: dlambda");
}

}  // namespace speedrun::ops
