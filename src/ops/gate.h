#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

enum class Activation : uint8_t { identity, sigmoid, tanh };

// A few numbers a token from the first channels of one or two tensors, for the gates of smear, attention,
// value embeddings and skips: values = activation(u w^T), u the inputs' rows one after the other. inputs [T,
// n_k] of one dtype (fp32 or bf16), rows contiguous, any row stride; w [outputs, sum n_k], contiguous, fp32
// or bf16 (used as it is stored); values fp32 [T, outputs], contiguous, saved for backward.
void gate(std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
          const at::Tensor& values);

// dinputs (as inputs, of their dtype) and dw (as w, fp32 or bf16) are added to; dw is summed over tokens in
// fp32 and rounded once. dvalues as values.
void gate_backward(const at::Tensor& dvalues, const at::Tensor& values, std::span<const at::Tensor> inputs,
                   const at::Tensor& w, Activation activation, std::span<const at::Tensor> dinputs,
                   const at::Tensor& dw);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void gate(std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
          const at::Tensor& values);
void gate_backward(const at::Tensor& dvalues, const at::Tensor& values, std::span<const at::Tensor> inputs,
                   const at::Tensor& w, Activation activation, std::span<const at::Tensor> dinputs,
                   const at::Tensor& dw);
}  // namespace reference

namespace cuda {
void gate(const Gpu& gpu, std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
          const at::Tensor& values);
void gate_backward(const Gpu& gpu, const at::Tensor& dvalues, const at::Tensor& values,
                   std::span<const at::Tensor> inputs, const at::Tensor& w, Activation activation,
                   std::span<const at::Tensor> dinputs, const at::Tensor& dw);
}  // namespace cuda

}  // namespace speedrun::ops
