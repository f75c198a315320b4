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

// kLanes lanes a head of a token, N neighbours at a time.
template <class T, class W, int N, int kLanes>
__global__ void head_gate_kernel(RowsOf<const T> y, Gate<T, W> gate, RowsOf<T> out, float* values,
                                 int64_t width, int64_t count) {
    constexpr int groups = kWarp / kLanes;
    const int lane = lane_index() % kLanes;
    const int64_t own = warp_index() * groups + lane_index() / kLanes;
    const int64_t index = own < count ? own : count - 1;  // all lanes take part in sums
    const int64_t t = index / gate.heads, head = index % gate.heads;
    float logit = 0;
    for (int64_t c = lane; c < gate.channels; c += kLanes)
        logit += load(gate.w[head * gate.channels + c]) * load(gate.x[t][c]);
    const float value = sigmoid(group_sum<kLanes>(logit));
    if (own >= count) return;
    if (lane == 0) values[index] = value;
    const T* from = y[t] + head * width;
    T* to = out[t] + head * width;
    for (int64_t i = lane * N; i < width; i += kLanes * N) {
        Pack<T, N> pack = load_pack<N>(from + i);
#pragma unroll
        for (int k = 0; k < N; ++k) store(pack.at[k], value * load(pack.at[k]));
        store_pack(to + i, pack);
    }
}

// dy of a head of a token, by the lanes of a group; the sum of y dout, which all of them get. Groups without
// a head take part in the sum.
template <int N, int kLanes, class T>
__device__ __forceinline__ float gate_head_backward(const T* dout, const T* y, T* dy, float value,
                                                    int64_t width, bool there) {
    float products = 0;
    for (int64_t i = lane_index() % kLanes * N; there && i < width; i += kLanes * N) {
        Pack<T, N> above = load_pack<N>(dout + i);
        const Pack<T, N> inner = load_pack<N>(y + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            products += load(above.at[k]) * load(inner.at[k]);
            store(above.at[k], value * load(above.at[k]));
        }
        store_pack(dy + i, above);
    }
    return group_sum<kLanes>(products);
}

// One warp a token, which goes through its heads, as many at once as there are groups of kLanes lanes; the
// sums for dw stay in registers, weight h * channels + c with lane (h * channels + c) % 32.
template <class T, class W, int N, int kLanes>
__global__ void head_gate_backward_kernel(RowsOf<const T> dout, RowsOf<const T> y, Gate<T, W> gate,
                                          const float* values, RowsOf<T> dy, RowsOf<T> dx, float* partials,
                                          int64_t width, int64_t tokens) {
    constexpr int groups = kWarp / kLanes;
    const int lane = lane_index();
    const int64_t weights = gate.heads * gate.channels;
    float dw[kWeightsPerLane] = {};
    for (int64_t t = warp_index(); t < tokens; t += warp_count()) {
        float dlogit = 0;  // of head `lane`
        for (int first = 0; first < gate.heads; first += groups) {
            const int64_t head = first + lane / kLanes;
            const bool there = head < gate.heads;
            const float value = there ? values[t * gate.heads + head] : 0;
            const int64_t at = head * width;
            const float products =
                gate_head_backward<N, kLanes>(dout[t] + at, y[t] + at, dy[t] + at, value, width, there);
            const float own = products * value * (1 - value);
#pragma unroll
            for (int group = 0; group < groups; ++group) {
                const float found = __shfl_sync(kAllLanes, own, group * kLanes);
                if (lane == first + group) dlogit = found;
            }
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
    store_block_sums(dw, weights, partials + blockIdx.x * weights);
}

template <class T, class W>
Gate<T, W> typed(const HeadGate& gate) {
    return {rows_of<const T>(gate.x), static_cast<const W*>(gate.w.data), gate.heads, gate.channels};
}

void check_gate(const HeadGate& gate) {
    if (gate.heads > kMostHeads || gate.heads * gate.channels > kMostGateWeights)
        throw std::runtime_error("head_gate: more heads or weights than the kernel holds");
}

// Calls body(T{}, W{}, std::integral_constant<int, N>, std::integral_constant<int, kLanes>): 16 lanes are
// enough for 128 elements of 2 bytes.
template <class Body>
void with_types(Scalar type, bool packed, Scalar weights, const Body& body) {
    with_packs(type, packed, [&]<class T, int N>(T zero, std::integral_constant<int, N> pack) {
        with_scalar(weights, [&]<class W>(W weight_zero) {
            body(zero, weight_zero, pack, std::integral_constant < int, N == 8 ? 16 : kWarp > {});
        });
    });
}

}  // namespace

void head_gate(Rows y, const HeadGate& gate, Rows out, float* values, Shape shape, Stream stream) {
    const int64_t count = shape.rows * gate.heads, width = shape.cols / gate.heads;
    with_types(y.type, packs(y, width) && packs(out, width), gate.w.type,
               [&]<class T, class W, int N, int kLanes>(T, W, std::integral_constant<int, N>,
                                                        std::integral_constant<int, kLanes>) {
                   launch(head_gate_kernel<T, W, N, kLanes>,
                          blocks_for(count, kWarpsPerBlock * (kWarp / kLanes)), kWarpsPerBlock * kWarp,
                          stream, rows_of<const T>(y), typed<T, W>(gate), rows_of<T>(out), values, width,
                          count);
               });
}

void head_gate_backward(Rows dout, Rows y, const HeadGate& gate, const float* values, Rows dy, Rows dx,
                        Flat dw, float* partials, Shape shape, Stream stream) {
    check_gate(gate);
    const int64_t blocks = partial_blocks(shape.rows), weights = gate.heads * gate.channels,
                  width = shape.cols / gate.heads;
    with_types(y.type, packs(dout, width) && packs(y, width) && packs(dy, width), gate.w.type,
               [&]<class T, class W, int N, int kLanes>(T, W, std::integral_constant<int, N>,
                                                        std::integral_constant<int, kLanes>) {
                   launch(head_gate_backward_kernel<T, W, N, kLanes>, blocks, kWarpsPerBlock * kWarp, stream,
                          rows_of<const T>(dout), rows_of<const T>(y), typed<T, W>(gate), values,
                          rows_of<T>(dy), rows_of<T>(dx), partials, width, shape.rows);
               });
    add_partials(partials, blocks, weights, weights, dw, stream);
}

}  // namespace speedrun::cuda
