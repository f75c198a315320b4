#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

using Operation = ScalarInstruction::Operation;

__device__ float element_at(const ScalarElement& element) {
    return element.type == Scalar::f32 ? *static_cast<const float*>(element.value)
                                       : load(*static_cast<const __nv_bfloat16*>(element.value));
}

// The values of an expression's instructions; the last one is the expression's.
__device__ void run(const ScalarProgram& program, int64_t begin, int64_t end, float* found) {
    for (int64_t i = begin; i < end; ++i) {
        const ScalarInstruction step = program.instructions[i];
        const float last = i > begin ? found[i - begin - 1] : 0;
        float& value = found[i - begin];
        switch (step.operation) {
            case Operation::number:
                value = step.number;
                break;
            case Operation::element:
                value = element_at(program.elements[step.element]);
                if (step.round_to_bf16) value = __bfloat162float(__float2bfloat16_rn(value));
                break;
            case Operation::add:
                value = found[step.left] + last;
                break;
            case Operation::multiply:
                value = found[step.left] * last;
                break;
            case Operation::sigmoid:
                value = sigmoid(last);
                break;
            case Operation::tanh:
                value = tanhf(last);
                break;
        }
    }
}

__global__ void evaluate_kernel(ScalarProgram program, float* values) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= program.expressions) return;
    float found[kMostScalarInstructions];
    const int64_t begin = program.starts[index], end = program.starts[index + 1];
    run(program, begin, end, found);
    values[index] = found[end - begin - 1];
}

// From the expression back to its elements: each instruction's contribution is what reaches it.
__global__ void contributions_kernel(ScalarProgram program, const float* grads) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= program.expressions) return;
    float found[kMostScalarInstructions];
    const int64_t begin = program.starts[index], end = program.starts[index + 1];
    run(program, begin, end, found);
    float* const reached = program.contributions + begin;
    reached[end - begin - 1] = grads[index];
    for (int64_t i = end - begin - 1; i > 0; --i) {
        const ScalarInstruction step = program.instructions[begin + i];
        const float above = reached[i], value = found[i];
        switch (step.operation) {
            case Operation::add:
                reached[i - 1] = reached[step.left] = above;
                break;
            case Operation::multiply:
                reached[i - 1] = above * found[step.left];
                reached[step.left] = above * found[i - 1];
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

__global__ void gradients_kernel(ScalarProgram program) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= program.element_count) return;
    float sum = 0;
    for (int32_t k = program.uses_begin[index]; k < program.uses_begin[index + 1]; ++k)
        sum += program.contributions[program.uses[k]];
    const ScalarElement element = program.elements[index];
    if (element.type == Scalar::f32)
        *static_cast<float*>(element.grad) += sum;
    else
        store(*static_cast<__nv_bfloat16*>(element.grad),
              load(*static_cast<const __nv_bfloat16*>(element.grad)) + sum);
}

constexpr int kThreads = 64;

void scalar_program(const ScalarProgram& program, float* values, Stream stream) {
    launch(evaluate_kernel, blocks_for(program.expressions, kThreads), kThreads, stream, program, values);
}

void scalar_program_backward(const ScalarProgram& program, const float* grads, Stream stream) {
    launch(contributions_kernel, blocks_for(program.expressions, kThreads), kThreads, stream, program, grads);
    launch(gradients_kernel, blocks_for(program.element_count, kThreads), kThreads, stream, program);
}

const Registration register_scalar_program(&Kernels::scalar_program, scalar_program);
const Registration register_scalar_program_backward(&Kernels::scalar_program_backward,
                                                    scalar_program_backward);

}  // namespace
}  // namespace speedrun::cuda
