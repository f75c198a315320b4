#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kMostOutputs = 32;  // a lane for each
constexpr int kWeightsPerLane = kMostGateWeights / kWarp;

template <class T, class W>
struct TypedGate {
    RowsOf<const T> inputs[kMostGateInputs];
    RowsOf<T> dinputs[kMostGateInputs];
    int64_t first, channels;  // of the first input, and of all
    const W* w;
    int64_t outputs;
    Activation activation;

    __device__ float input(int64_t t, int64_t c) const {
        return load(c < first ? inputs[0][t][c] : inputs[1][t][c - first]);
    }
    __device__ T* gradient(int64_t t, int64_t c) const {
        return c < first ? dinputs[0][t] + c : dinputs[1][t] + (c - first);
    }
};

__device__ __forceinline__ float activated(Activation activation, float z) {
    if (activation == Activation::sigmoid) return sigmoid(z);
    return activation == Activation::tanh ? tanhf(z) : z;
}

// The derivative, from the value.
__device__ __forceinline__ float slope_of(Activation activation, float value) {
    if (activation == Activation::sigmoid) return value * (1 - value);
    return activation == Activation::tanh ? 1 - value * value : 1;
}

// A thread an output of a token: the inputs of a token are few, and shared by its threads' cache lines.
template <class T, class W>
__global__ void gate_kernel(TypedGate<T, W> gate, float* values, int64_t count) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= count) return;
    const int64_t t = index / gate.outputs, output = index % gate.outputs;
    float z = 0;
    for (int64_t c = 0; c < gate.channels; ++c)
        z += load(gate.w[output * gate.channels + c]) * gate.input(t, c);
    values[index] = activated(gate.activation, z);
}

// One warp a token. The sums for dw stay in registers: weight output * channels + c with lane (output *
// channels + c) % 32.
template <class T, class W>
__global__ void gate_backward_kernel(TypedGate<T, W> gate, const float* values, const float* dvalues,
                                     float* partials, int64_t tokens) {
    const int lane = lane_index();
    const int64_t weights = gate.outputs * gate.channels;
    float dw[kWeightsPerLane] = {};
    for (int64_t t = warp_index(); t < tokens; t += warp_count()) {
        float dz = 0;  // of output `lane`
        if (lane < gate.outputs) {
            const int64_t index = t * gate.outputs + lane;
            dz = dvalues[index] * slope_of(gate.activation, values[index]);
        }
#pragma unroll
        for (int k = 0; k < kWeightsPerLane; ++k) {
            if (k * kWarp >= weights) break;
            const int64_t weight = k * kWarp + lane;
            const float above =
                __shfl_sync(kAllLanes, dz, weight < weights ? static_cast<int>(weight / gate.channels) : 0);
            if (weight < weights) dw[k] += above * gate.input(t, weight % gate.channels);
        }
        for (int64_t begin = 0; begin < gate.channels; begin += kWarp) {
            const int64_t c = begin + lane;
            float sum = c < gate.channels ? load(*gate.gradient(t, c)) : 0;
            for (int64_t output = 0; output < gate.outputs; ++output) {
                const float above = __shfl_sync(kAllLanes, dz, static_cast<int>(output));
                if (c < gate.channels) sum += above * load(gate.w[output * gate.channels + c]);
            }
            if (c < gate.channels) store(*gate.gradient(t, c), sum);
        }
    }
    store_block_sums(dw, weights, partials + blockIdx.x * weights);
}

template <class T, class W>
TypedGate<T, W> typed(const Gate& gate) {
    TypedGate<T, W> found{{},
                          {},
                          gate.channels[0],
                          gate.total_channels(),
                          static_cast<const W*>(gate.w.data),
                          gate.outputs,
                          gate.activation};
    for (int k = 0; k < gate.inputs_count; ++k) {
        found.inputs[k] = rows_of<const T>(gate.inputs[k]);
        found.dinputs[k] = rows_of<T>(gate.dinputs[k]);
    }
    return found;
}

// Calls body(T{}, W{}).
template <class Body>
void with_types(const Gate& gate, const Body& body) {
    if (gate.outputs > kMostOutputs || gate.outputs * gate.total_channels() > kMostGateWeights)
        throw std::runtime_error("gate: more outputs or weights than the kernel holds");
    with_scalar(gate.inputs[0].type, [&]<class T>(T zero) {
        with_scalar(gate.w.type, [&]<class W>(W weight_zero) { body(zero, weight_zero); });
    });
}

void gate(const Gate& gate, float* values, int64_t tokens, Stream stream) {
    const int64_t count = tokens * gate.outputs;
    constexpr int threads = kWarpsPerBlock * kWarp;
    with_types(gate, [&]<class T, class W>(T, W) {
        launch(gate_kernel<T, W>, blocks_for(count, threads), threads, stream, typed<T, W>(gate), values,
               count);
    });
}

void gate_backward(const Gate& gate, const float* values, const float* dvalues, Flat dw, float* partials,
                   int64_t tokens, Stream stream) {
    const int64_t blocks = partial_blocks(tokens), weights = gate.outputs * gate.total_channels();
    with_types(gate, [&]<class T, class W>(T, W) {
        launch(gate_backward_kernel<T, W>, blocks, kWarpsPerBlock * kWarp, stream, typed<T, W>(gate), values,
               dvalues, partials, tokens);
    });
    add_partials(partials, blocks, weights, weights, dw, stream);
}

const Registration register_gate(&Kernels::gate, gate);
const Registration register_gate_backward(&Kernels::gate_backward, gate_backward);

}  // namespace
}  // namespace speedrun::cuda
