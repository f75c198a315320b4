#include "ops/gate.h"

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

void reference::head_gate(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w,
                          const at::Tensor& out, const at::Tensor& gate) {
    gate.copy_(at::sigmoid(at::mm(wide(x.narrow(1, 0, w.size(1))), w.to(gate.scalar_type()).t())));
    out.copy_(wide(y) * gate.unsqueeze(-1));
}

void reference::head_gate_backward(const at::Tensor& dout, const at::Tensor& y, const at::Tensor& x,
                                   const at::Tensor& w, const at::Tensor& gate, const at::Tensor& dy,
                                   const at::Tensor& dx, const at::Tensor& dw) {
    const at::Tensor head = x.narrow(1, 0, w.size(1)), dhead = dx.narrow(1, 0, w.size(1));
    const at::Tensor dlogit = (wide(dout) * wide(y)).sum(-1) * gate * (1 - gate);
    dy.copy_(wide(dout) * gate.unsqueeze(-1));
    dhead.copy_(wide(dhead) + at::mm(dlogit, w.to(gate.scalar_type())));
    dw.copy_(wide(dw) + at::mm(dlogit.t(), wide(head)));
}

namespace {

struct Sizes {
    int64_t tokens, heads, d, n;  // n: channels of x the gate reads
};

Sizes check_sizes(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w) {
    check(y.dim() == 3 && x.dim() == 2 && w.dim() == 2, "head_gate: y is [T, H, D], x [T, d], w [H, n]");
    check(x.size(0) == y.size(0) && w.size(0) == y.size(1) && w.size(1) <= x.size(1),
          "head_gate: sizes of y, x and w disagree");
    return {y.size(0), y.size(1), y.size(2), w.size(1)};
}

// One token: dlogit [H] -> dx[:n] += dlogit w, dw += dlogit^T x.
template <class T>
void add_gate_gradients(const float* dlogit, const T* x, const float* w, const Sizes& size, T* dx,
                        float* dw) {
    for (int64_t c = 0; c < size.n; ++c) {
        float sum = cpu::load(dx[c]);
        for (int64_t h = 0; h < size.heads; ++h) sum += dlogit[h] * w[h * size.n + c];
        cpu::store(dx[c], sum);
    }
    for (int64_t h = 0; h < size.heads; ++h) cpu::add_scaled(x, dlogit[h], dw + h * size.n, size.n);
}

}  // namespace

void head_gate(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w, const at::Tensor& out,
               const at::Tensor& gate) {
    if (y.is_meta()) return;
    if (cuda::fused(y)) return cuda::on_device_of(y).head_gate(y, x, w, out, gate);
    if (!cpu::fused(y)) return reference::head_gate(y, x, w, out, gate);
    const Sizes size = check_sizes(y, x, w);
    const std::vector<float> weights = cpu::as_floats(w, "head_gate: w");
    float* g = cpu::flat<float>(gate, size.tokens * size.heads, "head_gate: gate");
    cpu::with_dtype(y.scalar_type(), [&]<class T>(T) {
        const auto from = cpu::rows<const T>(y, y.sizes(), "head_gate: y");
        const auto input = cpu::rows<const T>(x, x.sizes(), "head_gate: x");
        const auto to = cpu::rows<T>(out, y.sizes(), "head_gate: out");
        cpu::for_each_row(size.tokens, size.heads * size.d, [&](int64_t t) {
            for (int64_t h = 0; h < size.heads; ++h) {
                const float logit = cpu::dot(weights.data() + h * size.n, input[t], size.n);
                const float value = 1.0F / (1.0F + std::exp(-logit));
                g[t * size.heads + h] = value;
                cpu::scale(from[t] + h * size.d, value, to[t] + h * size.d, size.d);
            }
        });
    });
}

void head_gate_backward(const at::Tensor& dout, const at::Tensor& y, const at::Tensor& x, const at::Tensor& w,
                        const at::Tensor& gate, const at::Tensor& dy, const at::Tensor& dx,
                        const at::Tensor& dw) {
    if (y.is_meta()) return;
    if (cuda::fused(y)) return cuda::on_device_of(y).head_gate_backward(dout, y, x, w, gate, dy, dx, dw);
    if (!cpu::fused(y)) return reference::head_gate_backward(dout, y, x, w, gate, dy, dx, dw);
    const Sizes size = check_sizes(y, x, w);
    const std::vector<float> weights = cpu::as_floats(w, "head_gate: w");
    const float* g = cpu::flat<const float>(gate, size.tokens * size.heads, "head_gate_backward: gate");
    const cpu::Chunks chunks(size.tokens, size.heads * size.d);
    cpu::Partials dw_sums(chunks, w.numel());
    cpu::with_dtype(y.scalar_type(), [&]<class T>(T) {
        const auto above = cpu::rows<const T>(dout, y.sizes(), "head_gate_backward: dout");
        const auto from = cpu::rows<const T>(y, y.sizes(), "head_gate_backward: y");
        const auto input = cpu::rows<const T>(x, x.sizes(), "head_gate_backward: x");
        const auto to = cpu::rows<T>(dy, y.sizes(), "head_gate_backward: dy");
        const auto dinput =
            cpu::rows<T>(dx.narrow(1, 0, w.size(1)), {x.size(0), w.size(1)}, "head_gate_backward: dx");
        chunks.for_each([&](int64_t chunk, int64_t begin, int64_t end) {
            std::vector<float> dlogit(static_cast<size_t>(size.heads));
            for (int64_t t = begin; t < end; ++t) {
                for (int64_t h = 0; h < size.heads; ++h) {
                    const float value = g[t * size.heads + h];
                    const T* head = above[t] + h * size.d;
                    const float dvalue = cpu::dot(head, from[t] + h * size.d, size.d);
                    dlogit[static_cast<size_t>(h)] = dvalue * value * (1 - value);
                    cpu::scale(head, value, to[t] + h * size.d, size.d);
                }
                add_gate_gradients(dlogit.data(), input[t], weights.data(), size, dinput[t], dw_sums[chunk]);
            }
        });
    });
    dw_sums.add_to(dw, 0, w.numel(), "head_gate_backward: dw");
}

}  // namespace speedrun::ops
