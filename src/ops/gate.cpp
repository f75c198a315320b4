#include "ops/gate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
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

constexpr size_t most_inputs = cuda::raw::kMostGateInputs;

int64_t check_gate(std::span<const at::Tensor> inputs, const at::Tensor& w, const at::Tensor& values) {
    check(!inputs.empty() && inputs.size() <= most_inputs, "gate: takes 1 or 2 inputs");
    int64_t channels = 0;
    for (const at::Tensor& x : inputs) {
        check(x.dim() == 2 && x.size(0) == values.size(0) && x.scalar_type() == inputs[0].scalar_type(),
              "gate: inputs are [T, n] of one dtype");
        channels += x.size(1);
    }
    check(w.dim() == 2 && values.dim() == 2 && w.size(0) == values.size(1) && w.size(1) == channels,
          "gate: w is [outputs, channels of the inputs], values [T, outputs]");
    return channels;
}

float activated(Activation activation, float z) {
    if (activation == Activation::sigmoid) return 1.0F / (1.0F + std::exp(-z));
    return activation == Activation::tanh ? std::tanh(z) : z;
}

// The derivative, from the value.
template <class Number>
Number slope_of(Activation activation, const Number& value) {
    if (activation == Activation::sigmoid) return value * (1 - value);
    return activation == Activation::tanh ? 1 - value * value : value * 0 + 1;
}

// The rows of up to two inputs, or their gradients.
template <class T>
struct InputRows {
    InputRows(std::span<const at::Tensor> inputs, const char* what) : count(inputs.size()) {
        for (size_t k = 0; k < count; ++k) {
            rows[k] = cpu::rows<T>(inputs[k], inputs[k].sizes(), what);
            channels[k] = inputs[k].size(1);
        }
    }
    size_t count;
    std::array<cpu::Rows<T>, most_inputs> rows;
    std::array<int64_t, most_inputs> channels{};
};

}  // namespace

void gate(std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
          const at::Tensor& values) {
    if (values.is_meta()) return;
    if (cuda::fused(inputs[0])) return cuda::gate(cuda::gpu_of(inputs[0]), inputs, w, activation, values);
    if (!cpu::fused(inputs[0])) return reference::gate(inputs, w, activation, values);
    const int64_t channels = check_gate(inputs, w, values), outputs = w.size(0), tokens = values.size(0);
    const std::vector<float> weights = cpu::as_floats(w, "gate: w");
    float* to = cpu::flat<float>(values, tokens * outputs, "gate: values");
    cpu::with_dtype(inputs[0].scalar_type(), [&]<class T>(T) {
        const InputRows<const T> from(inputs, "gate: input");
        cpu::for_each_row(tokens, outputs * channels, [&](int64_t t) {
            for (int64_t h = 0; h < outputs; ++h) {
                const float* own = weights.data() + h * channels;
                float z = 0;
                for (size_t k = 0; k < from.count; own += from.channels[k++])
                    z += cpu::dot(own, from.rows[k][t], from.channels[k]);
                to[t * outputs + h] = activated(activation, z);
            }
        });
    });
}

void gate_backward(const at::Tensor& dvalues, const at::Tensor& values, std::span<const at::Tensor> inputs,
                   const at::Tensor& w, Activation activation, std::span<const at::Tensor> dinputs,
                   const at::Tensor& dw) {
    if (values.is_meta()) return;
    if (cuda::fused(inputs[0]))
        return cuda::gate_backward(cuda::gpu_of(inputs[0]), dvalues, values, inputs, w, activation, dinputs,
                                   dw);
    if (!cpu::fused(inputs[0]))
        return reference::gate_backward(dvalues, values, inputs, w, activation, dinputs, dw);
    const int64_t channels = check_gate(inputs, w, values), outputs = w.size(0), tokens = values.size(0);
    const std::vector<float> weights = cpu::as_floats(w, "gate: w");
    const float* v = cpu::flat<const float>(values, tokens * outputs, "gate_backward: values");
    const float* dv = cpu::flat<const float>(dvalues, tokens * outputs, "gate_backward: dvalues");
    const cpu::Chunks chunks(tokens, outputs * channels);
    cpu::Partials dw_sums(chunks, w.numel());
    cpu::with_dtype(inputs[0].scalar_type(), [&]<class T>(T) {
        const InputRows<const T> from(inputs, "gate_backward: input");
        const InputRows<T> to(dinputs, "gate_backward: dinput");
        chunks.for_each([&](int64_t chunk, int64_t begin, int64_t end) {
            std::vector<float> du(static_cast<size_t>(channels));
            for (int64_t t = begin; t < end; ++t) {
                std::ranges::fill(du, 0.0F);
                for (int64_t h = 0; h < outputs; ++h) {
                    const int64_t at = t * outputs + h;
                    const float dz = dv[at] * slope_of(activation, v[at]);
                    cpu::add_scaled(weights.data() + h * channels, dz, du.data(), channels);
                    float* sums = dw_sums[chunk] + h * channels;
                    for (size_t k = 0; k < from.count; sums += from.channels[k++])
                        cpu::add_scaled(from.rows[k][t], dz, sums, from.channels[k]);
                }
                const float* own = du.data();
                for (size_t k = 0; k < to.count; own += to.channels[k++])
                    cpu::add_scaled(own, 1.0F, to.rows[k][t], to.channels[k]);
            }
        });
    });
    dw_sums.add_to(dw, 0, w.numel(), "gate_backward: dw");
}

void reference::gate(std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
                     const at::Tensor& values) {
    check_gate(inputs, w, values);
    std::vector<at::Tensor> parts;
    for (const at::Tensor& x : inputs) parts.push_back(wide(x));
    const at::Tensor z = at::mm(at::cat(parts, 1), w.to(values.scalar_type()).t());
    const at::Tensor a = activation == Activation::sigmoid ? at::sigmoid(z)
                         : activation == Activation::tanh  ? at::tanh(z)
                                                           : z;
    values.copy_(a);
}

void reference::gate_backward(const at::Tensor& dvalues, const at::Tensor& values,
                              std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
                              std::span<const at::Tensor> dinputs, const at::Tensor& dw) {
    check_gate(inputs, w, values);
    const at::Tensor dz = dvalues * slope_of<at::Tensor>(activation, values);
    const at::Tensor du = at::mm(dz, w.to(dz.scalar_type()));
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (size_t k = 0; k < inputs.size(); ++k) {
        const int64_t count = inputs[k].size(1);
        parts.push_back(wide(inputs[k]));
        dinputs[k].copy_(wide(dinputs[k]) + du.narrow(1, begin, count));
        begin += count;
    }
    dw.copy_(wide(dw) + at::mm(dz.t(), at::cat(parts, 1)));
}

namespace cuda {
namespace {

raw::Gate gate_of(std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
                  const at::Tensor& values) {
    check_gate(inputs, w, values);
    raw::Gate gate;
    gate.inputs_count = static_cast<int>(inputs.size());
    for (size_t k = 0; k < inputs.size(); ++k) {
        gate.inputs[k] = rows(inputs[k], inputs[k].sizes(), "gate: input");
        gate.channels[k] = inputs[k].size(1);
    }
    gate.w = flat(w, w.numel(), "gate: w");
    gate.outputs = w.size(0);
    gate.activation = activation == Activation::sigmoid ? raw::Activation::sigmoid
                      : activation == Activation::tanh  ? raw::Activation::tanh
                                                        : raw::Activation::identity;
    return gate;
}

}  // namespace

void gate(const Gpu& gpu, std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
          const at::Tensor& values) {
    gpu.kernels.gate(gate_of(inputs, w, activation, values), floats(values, values.numel(), "gate: values"),
                     values.size(0), gpu.stream);
}

void gate_backward(const Gpu& gpu, const at::Tensor& dvalues, const at::Tensor& values,
                   std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
                   std::span<const at::Tensor> dinputs, const at::Tensor& dw) {
    raw::Gate gate = gate_of(inputs, w, activation, values);
    for (size_t k = 0; k < inputs.size(); ++k)
        gate.dinputs[k] = rows(dinputs[k], inputs[k].sizes(), "gate_backward: dinput");
    const at::Tensor partials = at::empty({raw::kPartialSets * w.numel()}, values.options());
    gpu.kernels.gate_backward(gate, floats(values, values.numel(), "gate_backward: values"),
                              floats(dvalues, values.numel(), "gate_backward: dvalues"),
                              flat(dw, w.numel(), "gate_backward: dw"), partials.data_ptr<float>(),
                              values.size(0), gpu.stream);
}

}  // namespace cuda
}  // namespace speedrun::ops
