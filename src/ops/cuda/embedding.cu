#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

// N elements at once where table and output have one type and alignment.
template <class From, class To, int N>
__global__ void embedding_kernel(RowsOf<const From> table, const int32_t* ids, RowsOf<To> out, Shape shape) {
    const int64_t t = warp_index();
    if (t >= shape.rows) return;
    const From* from = table[ids[t]];
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        const Pack<From, N> pack = load_pack<N>(from + i);
        Pack<To, N> copy;
#pragma unroll
        for (int k = 0; k < N; ++k) store(copy.at[k], load(pack.at[k]));
        store_pack(out[t] + i, copy);
    }
}

// One block for each run of equal ids, at the run's first position; the others leave at once. A thread sums
// its columns in the order of the tokens, so that no two threads write the same number. A frequent id makes
// one block's run long: such a run is not split yet.
template <class From, class To>
__global__ void embedding_backward_kernel(RowsOf<const From> dout, const int32_t* sorted,
                                          const int64_t* order, RowsOf<To> dtable, Shape shape) {
    const int64_t first = blockIdx.x;
    const int32_t id = sorted[first];
    if (first > 0 && sorted[first - 1] == id) return;
    for (int64_t i = threadIdx.x; i < shape.cols; i += blockDim.x) {
        float sum = 0;
#pragma unroll 4
        for (int64_t k = first; k < shape.rows && sorted[k] == id; ++k) sum += load(dout[order[k]][i]);
        store(dtable[id][i], load(dtable[id][i]) + sum);
    }
}

// Calls body(From{}, To{}).
template <class Body>
void with_types(Scalar from, Scalar to, const Body& body) {
    with_scalar(from, [&]<class From>(From from_zero) {
        with_scalar(to, [&]<class To>(To to_zero) { body(from_zero, to_zero); });
    });
}

}  // namespace

void embedding(Rows table, const int32_t* ids, Rows out, Shape shape, Stream stream) {
    const bool packed = table.type == out.type && packs(table, shape.cols) && packs(out, shape.cols);
    with_types(table.type, out.type, [&]<class From, class To>(From, To) {
        constexpr int kPack = sizeof(From) == sizeof(To) ? 16 / sizeof(From) : 1;
        launch(packed ? embedding_kernel<From, To, kPack> : embedding_kernel<From, To, 1>,
               row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream, rows_of<const From>(table), ids,
               rows_of<To>(out), shape);
    });
}

void embedding_backward(Rows dout, const int32_t* sorted, const int64_t* order, Rows dtable, Shape shape,
                        Stream stream) {
    constexpr int kThreads = 256;
    with_types(dout.type, dtable.type, [&]<class From, class To>(From, To) {
        launch(embedding_backward_kernel<From, To>, shape.rows, kThreads, stream, rows_of<const From>(dout),
               sorted, order, rows_of<To>(dtable), shape);
    });
}

}  // namespace speedrun::cuda
