#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

__device__ __forceinline__ float factor_of(const Smear& smear, int64_t t) {
    return smear.factor ? smear.factor[t] : 1;
}

template <class T, int N>
__global__ void smear_kernel(RowsOf<const T> e, Smear smear, RowsOf<T> out, Shape shape) {
    const int64_t t = warp_index();
    if (t >= shape.rows) return;
    const float weight = t == 0 ? 0 : *smear.lambda * factor_of(smear, t);
    const T* previous = e[t == 0 ? 0 : t - 1];
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        Pack<T, N> pack = load_pack<N>(e[t] + i);
        const Pack<T, N> before = load_pack<N>(previous + i);
#pragma unroll
        for (int k = 0; k < N; ++k) store(pack.at[k], load(pack.at[k]) + weight * load(before.at[k]));
        store_pack(out[t] + i, pack);
    }
}

template <class T, int N>
__global__ void smear_backward_kernel(RowsOf<const T> dout, RowsOf<const T> e, Smear smear, RowsOf<T> de,
                                      float* dfactor, float* partials, Shape shape) {
    const int lane = lane_index();
    const float lambda = *smear.lambda;
    float sums[1] = {};  // of the first lane: dlambda
    for (int64_t t = warp_index(); t < shape.rows; t += warp_count()) {
        const bool first = t == 0, last = t + 1 == shape.rows;
        const T *previous = e[first ? 0 : t - 1], *next = dout[last ? t : t + 1];
        const float weight = last ? 0 : lambda * factor_of(smear, t + 1);
        float inner = 0;
        for (int64_t i = lane * N; i < shape.cols; i += kWarp * N) {
            Pack<T, N> pack = load_pack<N>(dout[t] + i);
            const Pack<T, N> before = load_pack<N>(previous + i), after = load_pack<N>(next + i);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                inner += load(pack.at[k]) * load(before.at[k]);
                store(pack.at[k], load(pack.at[k]) + weight * load(after.at[k]));
            }
            store_pack(de[t] + i, pack);
        }
        inner = first ? 0 : warp_sum(inner);
        if (lane != 0) continue;
        sums[0] += factor_of(smear, t) * inner;
        if (dfactor) dfactor[t] += lambda * inner;
    }
    store_block_sums(sums, 1, partials + blockIdx.x);
}

void smear(Rows e, const Smear& smear, Rows out, Shape shape, Stream stream) {
    with_packs(e.type, packs(e, shape.cols) && packs(out, shape.cols),
               [&]<class T, int N>(T, std::integral_constant<int, N>) {
                   launch(smear_kernel<T, N>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
                          rows_of<const T>(e), smear, rows_of<T>(out), shape);
               });
}

void smear_backward(Rows dout, Rows e, const Smear& smear, Rows de, float* dfactor, float* dlambda,
                    float* partials, Shape shape, Stream stream) {
    const int64_t blocks = partial_blocks(shape.rows);
    const bool packed = packs(dout, shape.cols) && packs(e, shape.cols) && packs(de, shape.cols);
    with_packs(e.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        launch(smear_backward_kernel<T, N>, blocks, kWarpsPerBlock * kWarp, stream, rows_of<const T>(dout),
               rows_of<const T>(e), smear, rows_of<T>(de), dfactor, partials, shape);
    });
    add_partials(partials, blocks, 1, 1, {dlambda, Scalar::f32}, stream);
}

const Registration register_smear(&Kernels::smear, smear);
const Registration register_smear_backward(&Kernels::smear_backward, smear_backward);

}  // namespace
}  // namespace speedrun::cuda
