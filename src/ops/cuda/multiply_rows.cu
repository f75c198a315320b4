#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

// N elements at once where all three have one type and alignment.
template <class T, class S, int N>
__global__ void multiply_rows_kernel(RowsOf<const T> from, RowsOf<const S> table, const int32_t* ids,
                                     RowsOf<T> to, Shape shape) {
    const int64_t t = warp_index();
    if (t >= shape.rows) return;
    const S* const factor = table[ids[t]];
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        Pack<T, N> pack = load_pack<N>(from[t] + i);
        const Pack<S, N> factors = load_pack<N>(factor + i);
#pragma unroll
        for (int k = 0; k < N; ++k) store(pack.at[k], load(pack.at[k]) * load(factors.at[k]));
        store_pack(to[t] + i, pack);
    }
}

void multiply_rows(Rows from, Rows table, const int32_t* ids, Rows to, Shape shape, Stream stream) {
    const bool packed = table.type == from.type && packs(table, shape.cols) && packs(from, shape.cols) &&
                        packs(to, shape.cols);
    with_scalar(from.type, [&]<class T>(T) {
        with_scalar(table.type, [&]<class S>(S) {
            constexpr int kPack = sizeof(T) == sizeof(S) ? 16 / sizeof(T) : 1;
            launch(packed ? multiply_rows_kernel<T, S, kPack> : multiply_rows_kernel<T, S, 1>,
                   row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream, rows_of<const T>(from),
                   rows_of<const S>(table), ids, rows_of<T>(to), shape);
        });
    });
}

const Registration register_multiply_rows(&Kernels::multiply_rows, multiply_rows);

}  // namespace
}  // namespace speedrun::cuda
