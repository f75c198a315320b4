#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

template <class T>
struct Sources {
    RowsOf<const T> rows[kMostSources];
    int count;
    const float* coefficients;
};

// Every source is asked for before the first is used.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> mixed(const Sources<T>& sources, const float (&c)[kMostSources],
                                            int64_t row, int64_t i) {
    Pack<T, N> packs[kMostSources];
#pragma unroll
    for (int j = 0; j < kMostSources; ++j)
        if (j < sources.count) packs[j] = load_pack<N>(sources.rows[j][row] + i);
    Pack<T, N> y;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kMostSources; ++j)
            if (j < sources.count) sum += c[j] * load(packs[j].at[k]);
        store(y.at[k], sum);
    }
    return y;
}

// The norm is that of y as stored: each lane reads what it has written itself.
template <class T, int N>
__global__ void mix_kernel(Sources<T> sources, RowsOf<T> y, RowsOf<T> normed, float* rstd, float eps,
                           Shape shape) {
    const int64_t row = warp_index();
    if (row >= shape.rows) return;
    float c[kMostSources];
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) c[j] = j < sources.count ? sources.coefficients[j] : 0;
    float squares = 0;
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        const Pack<T, N> pack = mixed<N>(sources, c, row, i);
        store_pack(y[row] + i, pack);
#pragma unroll
        for (int k = 0; k < N; ++k) squares += load(pack.at[k]) * load(pack.at[k]);
    }
    if (!normed.data) return;
    const float scale = rsqrtf(warp_sum(squares) / static_cast<float>(shape.cols) + eps);
    if (lane_index() == 0) rstd[row] = scale;
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        Pack<T, N> pack = load_pack<N>(y[row] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) store(pack.at[k], scale * load(pack.at[k]));
        store_pack(normed[row] + i, pack);
    }
}

template <class T>
struct Gradients {
    RowsOf<const T> dy;
    RowsOf<const T> sources[kMostSources];
    RowsOf<T> dsources[kMostSources];
    bool accumulate[kMostSources];
    int count;
    const float* coefficients;
    float* partials;
};

// Everything of a pack is read before any of it is written, but for what is added to: a tensor may appear
// twice there.
template <int N, class T>
__device__ __forceinline__ void mix_backward_pack(const Gradients<T>& g, const float (&c)[kMostSources],
                                                  int64_t row, int64_t i, float (&dc)[kMostSources]) {
    const Pack<T, N> dy = load_pack<N>(g.dy[row] + i);
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        if (j >= g.count || !g.sources[j].data) continue;
        const Pack<T, N> source = load_pack<N>(g.sources[j][row] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) dc[j] += load(dy.at[k]) * load(source.at[k]);
    }
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        if (j >= g.count || !g.dsources[j].data) continue;
        T* const to = g.dsources[j][row] + i;
        Pack<T, N> ds;
        if (g.accumulate[j]) ds = load_pack<N>(to);
#pragma unroll
        for (int k = 0; k < N; ++k)
            store(ds.at[k], (g.accumulate[j] ? load(ds.at[k]) : 0) + c[j] * load(dy.at[k]));
        store_pack(to, ds);
    }
}

template <class T, int N>
__global__ void mix_backward_kernel(Gradients<T> g, Shape shape) {
    float c[kMostSources], dc[kMostSources];
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        c[j] = j < g.count ? g.coefficients[j] : 0;
        dc[j] = 0;
    }
    for (int64_t row = warp_index(); row < shape.rows; row += warp_count())
        for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N)
            mix_backward_pack<N>(g, c, row, i, dc);
    if (!g.partials) return;
    float sums[1] = {};
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        const float sum = warp_sum(dc[j]);
        if (lane_index() == j) sums[0] = sum;
    }
    store_block_sums(sums, g.count, g.partials + blockIdx.x * g.count);
}

}  // namespace

void mix(const Mix& mix, Shape shape, Stream stream) {
    bool packed = packs(mix.y, shape.cols) && packs(mix.normed, shape.cols);
    for (int j = 0; j < mix.count; ++j) packed = packed && packs(mix.sources[j], shape.cols);
    with_packs(mix.y.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        Sources<T> sources{{}, mix.count, mix.coefficients};
        for (int j = 0; j < mix.count; ++j) sources.rows[j] = rows_of<const T>(mix.sources[j]);
        launch(mix_kernel<T, N>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream, sources,
               rows_of<T>(mix.y), rows_of<T>(mix.normed), mix.rstd, mix.eps, shape);
    });
}

void mix_backward(const MixBackward& mix, Shape shape, Stream stream) {
    bool packed = packs(mix.dy, shape.cols), wants_dc = false;
    for (int j = 0; j < mix.count; ++j) {
        packed = packed && packs(mix.sources[j], shape.cols) && packs(mix.dsources[j], shape.cols);
        wants_dc = wants_dc || mix.sources[j].data;
    }
    const int64_t blocks = partial_blocks(shape.rows);
    with_packs(mix.dy.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        Gradients<T> g{rows_of<const T>(mix.dy),         {}, {}, {}, mix.count, mix.coefficients,
                       wants_dc ? mix.partials : nullptr};
        for (int j = 0; j < mix.count; ++j) {
            g.sources[j] = rows_of<const T>(mix.sources[j]);
            g.dsources[j] = rows_of<T>(mix.dsources[j]);
            g.accumulate[j] = mix.accumulate[j];
        }
        launch(mix_backward_kernel<T, N>, blocks, kWarpsPerBlock * kWarp, stream, g, shape);
    });
    if (wants_dc)
        add_partials(mix.partials, blocks, mix.count, mix.count, {mix.dcoefficients, Scalar::f32}, stream);
}

}  // namespace speedrun::cuda
