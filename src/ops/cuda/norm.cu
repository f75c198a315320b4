#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

template <class T, int N>
__global__ void rms_norm_kernel(RowsOf<const T> x, float eps, RowsOf<T> y, float* rstd, Shape shape) {
    const int64_t row = warp_index();
    if (row >= shape.rows) return;
    float squares = 0;
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        const Pack<T, N> pack = load_pack<N>(x[row] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) squares += load(pack.at[k]) * load(pack.at[k]);
    }
    const float scale = rsqrtf(warp_sum(squares) / static_cast<float>(shape.cols) + eps);
    if (lane_index() == 0) rstd[row] = scale;
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        Pack<T, N> pack = load_pack<N>(x[row] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) store(pack.at[k], scale * load(pack.at[k]));
        store_pack(y[row] + i, pack);
    }
}

template <class T, int N, bool kAccumulate>
__global__ void rms_norm_backward_kernel(RowsOf<const T> dy, RowsOf<const T> x, const float* rstd,
                                         RowsOf<T> dx, Shape shape) {
    const int64_t row = warp_index();
    if (row >= shape.rows) return;
    float products = 0;
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        const Pack<T, N> above = load_pack<N>(dy[row] + i), value = load_pack<N>(x[row] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) products += load(above.at[k]) * load(value.at[k]);
    }
    const float scale = rstd[row];
    const float slope = scale * scale * scale * warp_sum(products) / static_cast<float>(shape.cols);
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        const Pack<T, N> above = load_pack<N>(dy[row] + i), value = load_pack<N>(x[row] + i);
        Pack<T, N> pack;
        if constexpr (kAccumulate) pack = load_pack<N>(dx[row] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float gradient = scale * load(above.at[k]) - slope * load(value.at[k]);
            store(pack.at[k], kAccumulate ? load(pack.at[k]) + gradient : gradient);
        }
        store_pack(dx[row] + i, pack);
    }
}

void rms_norm(Rows x, float eps, Rows y, float* rstd, Shape shape, Stream stream) {
    with_packs(x.type, packs(x, shape.cols) && packs(y, shape.cols),
               [&]<class T, int N>(T, std::integral_constant<int, N>) {
                   launch(rms_norm_kernel<T, N>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
                          rows_of<const T>(x), eps, rows_of<T>(y), rstd, shape);
               });
}

void rms_norm_backward(Rows dy, Rows x, const float* rstd, Rows dx, bool accumulate, Shape shape,
                       Stream stream) {
    const bool packed = packs(dy, shape.cols) && packs(x, shape.cols) && packs(dx, shape.cols);
    with_packs(x.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        launch(accumulate ? rms_norm_backward_kernel<T, N, true> : rms_norm_backward_kernel<T, N, false>,
               row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream, rows_of<const T>(dy),
               rows_of<const T>(x), rstd, rows_of<T>(dx), shape);
    });
}

const Registration register_rms_norm(&Kernels::rms_norm, rms_norm);
const Registration register_rms_norm_backward(&Kernels::rms_norm_backward, rms_norm_backward);

}  // namespace
}  // namespace speedrun::cuda
