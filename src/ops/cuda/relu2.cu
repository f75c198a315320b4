#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

// NaN stays NaN, which fmaxf would hide.
__device__ __forceinline__ float positive(float x) {
    return x <= 0 ? 0 : x;
}

template <class T, int N>
__global__ void relu2_kernel(RowsOf<const T> x, RowsOf<T> y, Shape shape) {
    for (int64_t row = warp_index(); row < shape.rows; row += warp_count())
        for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
            Pack<T, N> pack = load_pack<N>(x[row] + i);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const float root = positive(load(pack.at[k]));
                store(pack.at[k], root * root);
            }
            store_pack(y[row] + i, pack);
        }
}

// max(x, 0) as backward gets it: from x, or from its square.
template <bool of_output>
__device__ __forceinline__ float root_of(float kept) {
    return of_output ? sqrtf(kept) : positive(kept);
}

template <bool of_output, class T, int N>
__global__ void relu2_backward_kernel(RowsOf<const T> dy, RowsOf<const T> kept, RowsOf<T> dx, Shape shape) {
    for (int64_t row = warp_index(); row < shape.rows; row += warp_count())
        for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
            const Pack<T, N> above = load_pack<N>(dy[row] + i), value = load_pack<N>(kept[row] + i);
            Pack<T, N> pack;
#pragma unroll
            for (int k = 0; k < N; ++k)
                store(pack.at[k], 2 * root_of<of_output>(load(value.at[k])) * load(above.at[k]));
            store_pack(dx[row] + i, pack);
        }
}

void relu2(Rows x, Rows y, Shape shape, Stream stream) {
    with_packs(x.type, packs(x, shape.cols) && packs(y, shape.cols),
               [&]<class T, int N>(T, std::integral_constant<int, N>) {
                   launch(relu2_kernel<T, N>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
                          rows_of<const T>(x), rows_of<T>(y), shape);
               });
}

template <bool of_output>
void backward(Rows dy, Rows kept, Rows dx, Shape shape, Stream stream) {
    const bool packed = packs(dy, shape.cols) && packs(kept, shape.cols) && packs(dx, shape.cols);
    with_packs(kept.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        launch(relu2_backward_kernel<of_output, T, N>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
               rows_of<const T>(dy), rows_of<const T>(kept), rows_of<T>(dx), shape);
    });
}

const Registration register_relu2(&Kernels::relu2, relu2);
const Registration register_relu2_backward(&Kernels::relu2_backward, backward<false>);
const Registration register_relu2_backward_of_output(&Kernels::relu2_backward_of_output, backward<true>);

}  // namespace
}  // namespace speedrun::cuda
