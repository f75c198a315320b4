#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kSumsPerLane = kMostGateWeights / kWarp;

template <class T, class W, int N>
__global__ void smear_kernel(RowsOf<const T> e, const W* w, int64_t channels, const float* lambda,
                             RowsOf<T> out, float* gate, Shape shape) {
    const int64_t t = warp_index();
    if (t >= shape.rows) return;
    float logit = 0;
    for (int64_t c = lane_index(); c < channels; c += kWarp) logit += load(w[c]) * load(e[t][c]);
    const float value = t == 0 ? 0 : sigmoid(warp_sum(logit));
    if (lane_index() == 0) gate[t] = value;
    const float factor = *lambda * value;
    const T* previous = e[t == 0 ? 0 : t - 1];
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        Pack<T, N> pack = load_pack<N>(e[t] + i);
        const Pack<T, N> before = load_pack<N>(previous + i);
#pragma unroll
        for (int k = 0; k < N; ++k) store(pack.at[k], load(pack.at[k]) + factor * load(before.at[k]));
        store_pack(out[t] + i, pack);
    }
}

// The sums for dw and, at index `channels`, for dlambda stay in registers: number i with lane i % 32.
template <class T, class W, int N>
__global__ void smear_backward_kernel(RowsOf<const T> dout, RowsOf<const T> e, const W* w, int64_t channels,
                                      const float* lambda, const float* gate, RowsOf<T> de, float* partials,
                                      Shape shape) {
    const int lane = lane_index();
    const float scale = *lambda;
    float sums[kSumsPerLane] = {};
    for (int64_t t = warp_index(); t < shape.rows; t += warp_count()) {
        const T* previous = e[t == 0 ? 0 : t - 1];
        float inner = 0;
        for (int64_t i = lane * N; i < shape.cols; i += kWarp * N) {
            const Pack<T, N> above = load_pack<N>(dout[t] + i), before = load_pack<N>(previous + i);
#pragma unroll
            for (int k = 0; k < N; ++k) inner += load(above.at[k]) * load(before.at[k]);
        }
        inner = t == 0 ? 0 : warp_sum(inner);
        const float value = gate[t], dlogit = scale * inner * value * (1 - value);
        const bool last = t + 1 == shape.rows;
        const float factor = last ? 0 : scale * gate[t + 1];
        const T* next = dout[last ? t : t + 1];
        for (int64_t i = lane * N; i < shape.cols; i += kWarp * N) {
            Pack<T, N> pack = load_pack<N>(dout[t] + i);
            const Pack<T, N> after = load_pack<N>(next + i);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const float sum = load(pack.at[k]) + factor * load(after.at[k]);
                store(pack.at[k], i + k < channels ? sum + dlogit * load(w[i + k]) : sum);
            }
            store_pack(de[t] + i, pack);
        }
#pragma unroll
        for (int k = 0; k < kSumsPerLane; ++k) {
            const int64_t i = k * kWarp + lane;
            if (i < channels) sums[k] += dlogit * load(e[t][i]);
            if (i == channels) sums[k] += value * inner;
        }
    }
    store_block_sums(sums, channels + 1, partials + blockIdx.x * (channels + 1));
}

// Calls body(T{}, W{}, std::integral_constant<int, N>).
template <class Body>
void with_types(Scalar type, bool packed, Scalar weights, const Body& body) {
    with_packs(type, packed, [&]<class T, class N>(T zero, N pack) {
        with_scalar(weights, [&]<class W>(W weight_zero) { body(zero, weight_zero, pack); });
    });
}

}  // namespace

void smear(Rows e, const Smear& smear, Rows out, float* gate, Shape shape, Stream stream) {
    const bool packed = packs(e, shape.cols) && packs(out, shape.cols);
    with_types(e.type, packed, smear.w.type,
               [&]<class T, class W, int N>(T, W, std::integral_constant<int, N>) {
                   launch(smear_kernel<T, W, N>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
                          rows_of<const T>(e), static_cast<const W*>(smear.w.data), smear.channels,
                          smear.lambda, rows_of<T>(out), gate, shape);
               });
}

void smear_backward(Rows dout, Rows e, const Smear& smear, const float* gate, Rows de, Flat dw,
                    float* dlambda, float* partials, Shape shape, Stream stream) {
    if (smear.channels >= kMostGateWeights)
        throw std::runtime_error("smear: more channels than the kernel holds");
    const int64_t blocks = partial_blocks(shape.rows), numbers = smear.channels + 1;
    const bool packed = packs(dout, shape.cols) && packs(e, shape.cols) && packs(de, shape.cols);
    with_types(e.type, packed, smear.w.type,
               [&]<class T, class W, int N>(T, W, std::integral_constant<int, N>) {
                   launch(smear_backward_kernel<T, W, N>, blocks, kWarpsPerBlock * kWarp, stream,
                          rows_of<const T>(dout), rows_of<const T>(e), static_cast<const W*>(smear.w.data),
                          smear.channels, smear.lambda, gate, rows_of<T>(de), partials, shape);
               });
    add_partials(partials, blocks, numbers, smear.channels, dw, stream);
    add_partials(partials + smear.channels, blocks, numbers, 1, {dlambda, Scalar::f32}, stream);
}

}  // namespace speedrun::cuda
