#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kMostHeads = 32;  // a lane for each
constexpr int kWeightsPerLane = kMostGateWeights / kWarp;

template <class T, class W>
struct Gate {
    RowsOf<const T> x;
    const W* w;
    int64_t heads, channels;
};

// One warp a head of a token.
template <class T, class W>
__global__ void head_gate_kernel(RowsOf<const T> y, Gate<T, W> gate, RowsOf<T> out, float* values,
                                 int64_t width, int64_t count) {
    const int64_t index = warp_index();
    if (index >= count) return;
    const int64_t t = index / gate.heads, head = index % gate.heads;
    float logit = 0;
    for (int64_t c = lane_index(); c < gate.channels; c += kWarp)
        logit += load(gate.w[head * gate.channels + c]) * load(gate.x[t][c]);
    const float value = sigmoid(warp_sum(logit));
    if (lane_index() == 0) values[index] = value;
    const T* from = y[t] + head * width;
    T* to = out[t] + head * width;
    for (int64_t i = lane_index(); i < width; i += kWarp) store(to[i], value * load(from[i]));
}

// One warp a token, which goes through its heads; the sums for dw stay in registers, weight h * channels + c
// with lane (h * channels + c) % 32.
template <class T, class W>
__global__ void head_gate_backward_kernel(RowsOf<const T> dout, RowsOf<const T> y, Gate<T, W> gate,
                                          const float* values, RowsOf<T> dy, RowsOf<T> dx, float* partials,
                                          int64_t width, int64_t tokens) {
    const int lane = lane_index();
    const int64_t weights = gate.heads * gate.channels;
    float dw[kWeightsPerLane] = {};
    for (int64_t t = warp_index(); t < tokens; t += warp_count()) {
        float dlogit = 0;  // of head `lane`
        for (int64_t head = 0; head < gate.heads; ++head) {
            const float value = values[t * gate.heads + head];
            float products = 0;
            for (int64_t i = head * width + lane; i < (head + 1) * width; i += kWarp) {
                const float above = load(dout[t][i]);
                products += above * load(y[t][i]);
                store(dy[t][i], value * above);
            }
            products = warp_sum(products);
            if (lane == head) dlogit = products * value * (1 - value);
        }
#pragma unroll
        for (int k = 0; k < kWeightsPerLane; ++k) {
            if (k * kWarp >= weights) break;
            const int64_t weight = k * kWarp + lane;
            const float above = __shfl_sync(kAllLanes, dlogit,
                                            weight < weights ? static_cast<int>(weight / gate.channels) : 0);
            if (weight < weights) dw[k] += above * load(gate.x[t][weight % gate.channels]);
        }
        for (int64_t begin = 0; begin < gate.channels; begin += kWarp) {
            const int64_t c = begin + lane;
            float sum = c < gate.channels ? load(dx[t][c]) : 0;
            for (int64_t head = 0; head < gate.heads; ++head) {
                const float above = __shfl_sync(kAllLanes, dlogit, static_cast<int>(head));
                if (c < gate.channels) sum += above * load(gate.w[head * gate.channels + c]);
            }
            if (c < gate.channels) store(dx[t][c], sum);
        }
    }
#pragma unroll
    for (int k = 0; k < kWeightsPerLane; ++k) {
        const int64_t weight = k * kWarp + lane;
        if (weight < weights) partials[warp_index() * weights + weight] = dw[k];
    }
}

template <class T, class W>
Gate<T, W> typed(const HeadGate& gate) {
    return {rows_of<const T>(gate.x), static_cast<const W*>(gate.w.data), gate.heads, gate.channels};
}

void check_gate(const HeadGate& gate) {
    if (gate.heads > kMostHeads || gate.heads * gate.channels > kMostGateWeights)
        throw std::runtime_error("head_gate: more heads or weights than the kernel holds");
}

// Calls body(T{}, W{}).
template <class Body>
void with_types(Scalar type, Scalar weights, const Body& body) {
    with_scalar(type, [&]<class T>(T zero) {
        with_scalar(weights, [&]<class W>(W weight_zero) { body(zero, weight_zero); });
    });
}

}  // namespace

void head_gate(Rows y, const HeadGate& gate, Rows out, float* values, Shape shape, Stream stream) {
    const int64_t count = shape.rows * gate.heads;
    with_types(y.type, gate.w.type, [&]<class T, class W>(T, W) {
        launch(head_gate_kernel<T, W>, row_blocks(count), kWarpsPerBlock * kWarp, stream, rows_of<const T>(y),
               typed<T, W>(gate), rows_of<T>(out), values, shape.cols / gate.heads, count);
    });
}

void head_gate_backward(Rows dout, Rows y, const HeadGate& gate, const float* values, Rows dy, Rows dx,
                        Flat dw, float* partials, Shape shape, Stream stream) {
    check_gate(gate);
    const int64_t blocks = partial_blocks(shape.rows);
    with_types(y.type, gate.w.type, [&]<class T, class W>(T, W) {
        launch(head_gate_backward_kernel<T, W>, blocks, kWarpsPerBlock * kWarp, stream,
               rows_of<const T>(dout), rows_of<const T>(y), typed<T, W>(gate), values, rows_of<T>(dy),
               rows_of<T>(dx), partials, shape.cols / gate.heads, shape.rows);
    });
    add_partials(partials, blocks * kWarpsPerBlock, gate.heads * gate.channels, dw, stream);
}

}  // namespace speedrun::cuda
