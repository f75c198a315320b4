#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

__device__ __forceinline__ bool moves(const KeyOffset& offset, int64_t channel) {
    const int64_t c = channel % offset.head_dim;
    bool moved = false;
#pragma unroll
    for (int i = 0; i < kMostOffsetChannels; ++i)
        moved = moved || (c >= offset.begin[i] && c < offset.end[i]);
    return moved;
}

template <class T, int N>
__global__ void key_offset_kernel(RowsOf<const T> x, KeyOffset offset, RowsOf<T> y, Shape shape) {
    for (int64_t t = warp_index(); t < shape.rows; t += warp_count())
        for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N)
            store_pack(y[t] + i, load_pack<N>(x[t > 0 && moves(offset, i) ? t - 1 : t] + i));
}

template <class T, int N>
__global__ void key_offset_backward_kernel(RowsOf<const T> dy, KeyOffset offset, RowsOf<T> dx, Shape shape) {
    for (int64_t t = warp_index(); t < shape.rows; t += warp_count())
        for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
            const bool moved = moves(offset, i), last = t + 1 == shape.rows;
            Pack<T, N> pack = load_pack<N>(dy[t] + i);
            const Pack<T, N> next = load_pack<N>(dy[last ? t : t + 1] + i);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const float own = moved && t > 0 ? 0 : load(pack.at[k]);
                store(pack.at[k], own + (moved && !last ? load(next.at[k]) : 0));
            }
            store_pack(dx[t] + i, pack);
        }
}

// Whether a pack of neighbours moves as a whole.
bool moves_packs(const KeyOffset& offset) {
    constexpr int64_t kMostInPack = 8;
    bool whole = offset.head_dim % kMostInPack == 0;
    for (int i = 0; i < kMostOffsetChannels; ++i)
        whole = whole && offset.begin[i] % kMostInPack == 0 && offset.end[i] % kMostInPack == 0;
    return whole;
}

void key_offset(Rows x, const KeyOffset& offset, Rows y, Shape shape, Stream stream) {
    const bool packed = moves_packs(offset) && packs(x, shape.cols) && packs(y, shape.cols);
    with_packs(x.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        launch(key_offset_kernel<T, N>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
               rows_of<const T>(x), offset, rows_of<T>(y), shape);
    });
}

void key_offset_backward(Rows dy, const KeyOffset& offset, Rows dx, Shape shape, Stream stream) {
    const bool packed = moves_packs(offset) && packs(dy, shape.cols) && packs(dx, shape.cols);
    with_packs(dy.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        launch(key_offset_backward_kernel<T, N>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
               rows_of<const T>(dy), offset, rows_of<T>(dx), shape);
    });
}

const Registration register_key_offset(&Kernels::key_offset, key_offset);
const Registration register_key_offset_backward(&Kernels::key_offset_backward, key_offset_backward);

}  // namespace
}  // namespace speedrun::cuda
