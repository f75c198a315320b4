#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

using ScalarInstruction = speedrun::cuda::ScalarInstruction;

// Small expressions of elements of parameters, all evaluated at once: the scalar coefficients of a model.
// Expression i is instructions [starts[i], starts[i + 1]), its operands before its operators.
struct ScalarProgram {
    std::vector<ScalarInstruction> instructions;
    std::vector<int32_t> starts{0};
    // Each element that is read, once, and for each all instructions that read it, [uses_begin[e],
    // uses_begin[e
    // + 1]) of `uses`: gradients are added up in that order.
    struct Element {
        at::Tensor value, grad;  // one element each, fp32 or bf16, where the parameter keeps them
    };
    std::vector<Element> elements;
    std::vector<int32_t> uses, uses_begin;

    int64_t size() const { return static_cast<int64_t>(starts.size()) - 1; }
};

// A program where it runs: its tables are on the device of its elements.
class ScalarEvaluator {
  public:
    // Instructions of one expression at most.
    static constexpr int64_t most_instructions = 32;

    ScalarEvaluator(ScalarProgram program, at::Device device);

    // values [n], fp32.
    void evaluate(const at::Tensor& values) const;
    // Adds grads[i] * d(expression i)/d(element) to the gradient of every element; grads [n], fp32.
    void backward(const at::Tensor& grads) const;

  private:
    speedrun::cuda::ScalarProgram raw() const;

    ScalarProgram program_;
    bool on_gpu_;
    at::Tensor instructions_, starts_, uses_, uses_begin_, addresses_;  // on a GPU
    at::Tensor contributions_;  // fp32, one an instruction: grad times the derivative with respect to it
};

}  // namespace speedrun::ops
