#include "ops/scalar_program.h"

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "ops/cuda/addresses.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using Operation = ScalarInstruction::Operation;
namespace raw = speedrun::cuda;

float rounded(float x) {
    return static_cast<float>(at::BFloat16(x));
}

float element_at(const raw::ScalarElement& element) {
    return element.type == raw::Scalar::f32
               ? *static_cast<const float*>(element.value)
               : static_cast<float>(*static_cast<const at::BFloat16*>(element.value));
}

void add_to(const raw::ScalarElement& element, float sum) {
    if (element.type == raw::Scalar::f32) {
        *static_cast<float*>(element.grad) += sum;
    } else {
        auto& grad = *static_cast<at::BFloat16*>(element.grad);
        grad = static_cast<float>(grad) + sum;
    }
}

using Values = std::array<float, raw::kMostScalarInstructions>;

// The values of an expression's instructions; the last one is the expression's.
void run(const raw::ScalarProgram& program, int64_t begin, int64_t end, Values& found) {
    for (int64_t i = begin; i < end; ++i) {
        const ScalarInstruction& step = program.instructions[i];
        const auto index = static_cast<size_t>(i - begin);
        const float last = index > 0 ? found[index - 1] : 0, left = found[static_cast<size_t>(step.left)];
        float& value = found[index];
        switch (step.operation) {
            case Operation::number:
                value = step.number;
                break;
            case Operation::element:
                value = element_at(program.elements[step.element]);
                if (step.round_to_bf16) value = rounded(value);
                break;
            case Operation::add:
                value = left + last;
                break;
            case Operation::multiply:
                value = left * last;
                break;
            case Operation::sigmoid:
                value = 1.0F / (1.0F + std::exp(-last));
                break;
            case Operation::tanh:
                value = std::tanh(last);
                break;
        }
    }
}

// From the expression back to its elements: `reached` is what each instruction contributes.
void reach(const raw::ScalarProgram& program, int64_t begin, int64_t end, const Values& found,
           float* reached) {
    for (int64_t i = end - begin - 1; i > 0; --i) {
        const ScalarInstruction& step = program.instructions[begin + i];
        const float above = reached[i], value = found[static_cast<size_t>(i)];
        switch (step.operation) {
            case Operation::add:
                reached[i - 1] = reached[step.left] = above;
                break;
            case Operation::multiply:
                reached[i - 1] = above * found[static_cast<size_t>(step.left)];
                reached[step.left] = above * found[static_cast<size_t>(i - 1)];
                break;
            case Operation::sigmoid:
                reached[i - 1] = above * value * (1 - value);
                break;
            case Operation::tanh:
                reached[i - 1] = above * (1 - value * value);
                break;
            default:
                break;
        }
    }
}

template <class T>
at::Tensor bytes_on(const std::vector<T>& host, at::Device device) {
    at::Tensor bytes = at::empty({static_cast<int64_t>(host.size() * sizeof(T))}, at::kByte);
    if (!host.empty()) std::memcpy(bytes.data_ptr(), host.data(), host.size() * sizeof(T));
    return bytes.to(device);
}

}  // namespace

ScalarEvaluator::ScalarEvaluator(ScalarProgram program, at::Device device)
    : program_(std::move(program)), on_gpu_(device.is_cuda()) {
    std::vector<raw::ScalarElement> elements;
    for (const auto& [value, grad] : program_.elements)
        elements.push_back(
            {value.const_data_ptr(), grad.data_ptr(), cuda::scalar(value, "a scalar parameter")});
    for (size_t i = 0; i + 1 < program_.starts.size(); ++i)
        check(program_.starts[i + 1] - program_.starts[i] <= most_instructions, "a coefficient is too long");
    addresses_ = bytes_on(elements, device);
    contributions_ = at::zeros({std::ssize(program_.instructions)}, at::device(device).dtype(at::kFloat));
    if (!on_gpu_) return;
    instructions_ = bytes_on(program_.instructions, device);
    starts_ = bytes_on(program_.starts, device);
    uses_ = bytes_on(program_.uses, device);
    uses_begin_ = bytes_on(program_.uses_begin, device);
}

raw::ScalarProgram ScalarEvaluator::raw() const {
    const auto of = [&]<class T>(const at::Tensor& on_device, const std::vector<T>& host) {
        return on_gpu_ ? static_cast<const T*>(on_device.const_data_ptr()) : host.data();
    };
    return {.instructions = of(instructions_, program_.instructions),
            .starts = of(starts_, program_.starts),
            .elements = static_cast<const speedrun::cuda::ScalarElement*>(addresses_.const_data_ptr()),
            .uses = of(uses_, program_.uses),
            .uses_begin = of(uses_begin_, program_.uses_begin),
            .expressions = program_.size(),
            .element_count = std::ssize(program_.elements),
            .contributions = contributions_.data_ptr<float>()};
}

void ScalarEvaluator::evaluate(const at::Tensor& values) const {
    const auto program = raw();
    float* const to = cuda::floats(values, program_.size(), "the values of coefficients");
    if (on_gpu_) {
        const cuda::Gpu gpu = cuda::gpu_of(values);
        return gpu.kernels.scalar_program(program, to, gpu.stream);
    }
    Values found{};
    for (size_t i = 0; i + 1 < program_.starts.size(); ++i) {
        const int64_t begin = program_.starts[i], end = program_.starts[i + 1];
        run(program, begin, end, found);
        to[i] = found[static_cast<size_t>(end - begin - 1)];
    }
}

void ScalarEvaluator::backward(const at::Tensor& grads) const {
    const auto program = raw();
    const float* const from = cuda::floats(grads, program_.size(), "the gradients of coefficients");
    if (on_gpu_) {
        const cuda::Gpu gpu = cuda::gpu_of(grads);
        return gpu.kernels.scalar_program_backward(program, from, gpu.stream);
    }
    Values found{};
    for (size_t i = 0; i + 1 < program_.starts.size(); ++i) {
        const int64_t begin = program_.starts[i], end = program_.starts[i + 1];
        run(program, begin, end, found);
        float* const reached = program.contributions + begin;
        reached[end - begin - 1] = from[i];
        reach(program, begin, end, found, reached);
    }
    for (size_t e = 0; e < program_.elements.size(); ++e) {
        float sum = 0;
        for (int32_t k = program_.uses_begin[e]; k < program_.uses_begin[e + 1]; ++k)
            sum += program.contributions[program_.uses[static_cast<size_t>(k)]];
        add_to(program.elements[e], sum);
    }
}

}  // namespace speedrun::ops
