#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kSumsPerLane = kMostGateWeights / kWarp;

template <class T, class W>
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
    for (int64_t i = lane_index(); i < shape.cols; i += kWarp)
        store(out[t][i], load(e[t][i]) + factor * load(previous[i]));
}

// The sums for dw and, at index `channels`, for dlambda stay in registers: number i with lane i % 32.
template <class T, class W>
__global__ void smear_backward_kernel(RowsOf<const T> dout, RowsOf<const T> e, const W* w, int64_t channels,
                                      const float* lambda, const float* gate, RowsOf<T> de, float* partials,
                                      Shape shape) {
    const int lane = lane_index();
    const float scale = *lambda;
    float sums[kSumsPerLane] = {};
    for (int64_t t = warp_index(); t < shape.rows; t += warp_count()) {
        const T* previous = e[t == 0 ? 0 : t - 1];
        float inner = 0;
        for (int64_t i = lane; i < shape.cols; i += kWarp) inner += load(dout[t][i]) * load(previous[i]);
        inner = t == 0 ? 0 : warp_sum(inner);
        const float value = gate[t], dlogit = scale * inner * value * (1 - value);
        const bool last = t + 1 == shape.rows;
        const float factor = last ? 0 : scale * gate[t + 1];
        const T* next = dout[last ? t : t + 1];
        for (int64_t i = lane; i < shape.cols; i += kWarp) {
            const float sum = load(dout[t][i]) + factor * load(next[i]);
            store(de[t][i], i < channels ? sum + dlogit * load(w[i]) : sum);
        }
#pragma unroll
        for (int k = 0; k < kSumsPerLane; ++k) {
            const int64_t i = k * kWarp + lane;
            if (i < channels) sums[k] += dlogit * load(e[t][i]);
            if (i == channels) sums[k] += value * inner;
        }
    }
#pragma unroll
    for (int k = 0; k < kSumsPerLane; ++k) {
        const int64_t i = k * kWarp + lane;
        // All of dw first, then all of dlambda.
        if (i < channels) partials[warp_index() * channels + i] = sums[k];
        if (i == channels) partials[warp_count() * channels + warp_index()] = sums[k];
    }
}

// Calls body(T{}, W{}).
template <class Body>
void with_types(Scalar type, Scalar weights, const Body& body) {
    with_scalar(type, [&]<class T>(T zero) {
        with_scalar(weights, [&]<class W>(W weight_zero) { body(zero, weight_zero); });
    });
}

}  // namespace

void smear(Rows e, const Smear& smear, Rows out, float* gate, Shape shape, Stream stream) {
    with_types(e.type, smear.w.type, [&]<class T, class W>(T, W) {
        launch(smear_kernel<T, W>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
               rows_of<const T>(e), static_cast<const W*>(smear.w.data), smear.channels, smear.lambda,
               rows_of<T>(out), gate, shape);
    });
}

void smear_backward(Rows dout, Rows e, const Smear& smear, const float* gate, Rows de, Flat dw,
                    float* dlambda, float* partials, Shape shape, Stream stream) {
    if (smear.channels >= kMostGateWeights)
        throw std::runtime_error("smear: more channels than the kernel holds");
    const int64_t blocks = partial_blocks(shape.rows), sets = blocks * kWarpsPerBlock;
    with_types(e.type, smear.w.type, [&]<class T, class W>(T, W) {
        launch(smear_backward_kernel<T, W>, blocks, kWarpsPerBlock * kWarp, stream, rows_of<const T>(dout),
               rows_of<const T>(e), static_cast<const W*>(smear.w.data), smear.channels, smear.lambda, gate,
               rows_of<T>(de), partials, shape);
    });
    add_partials(partials, sets, smear.channels, dw, stream);
    add_partials(partials + sets * smear.channels, sets, 1, {dlambda, Scalar::f32}, stream);
}

}  // namespace speedrun::cuda
