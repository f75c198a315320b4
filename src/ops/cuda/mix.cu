#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

template <class T>
struct Sources {
    RowsOf<const T> rows[kMostSources];
    Factor factors[kMostSources];
    int count;
    const float* coefficients;
};

// What factor j of a row multiplies channel i by.
__device__ __forceinline__ float factor_at(const Factor& factor, int64_t row, int64_t i, int64_t cols) {
    if (!factor.data) return 1;
    return factor.offset + factor.data[row * factor.stride + i * factor.columns / cols];
}

// Every source is asked for before the first is used.
template <int N, bool kFactors, class T>
__device__ __forceinline__ Pack<T, N> mixed(const Sources<T>& sources, const float (&c)[kMostSources],
                                            int64_t row, int64_t i, int64_t cols) {
    Pack<T, N> packs[kMostSources];
#pragma unroll
    for (int j = 0; j < kMostSources; ++j)
        if (j < sources.count) packs[j] = load_pack<N>(sources.rows[j][row] + i);
    float own[kMostSources];
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        own[j] = c[j];
        if (kFactors && j < sources.count) own[j] *= factor_at(sources.factors[j], row, i, cols);
    }
    Pack<T, N> y;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kMostSources; ++j)
            if (j < sources.count) sum += own[j] * load(packs[j].at[k]);
        store(y.at[k], sum);
    }
    return y;
}

// The norm is that of y as stored: each lane reads what it has written itself.
template <class T, int N, bool kFactors>
__global__ void mix_kernel(Sources<T> sources, RowsOf<T> y, RowsOf<T> normed, float* rstd, float eps,
                           Shape shape) {
    const int64_t row = warp_index();
    if (row >= shape.rows) return;
    float c[kMostSources];
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) c[j] = j < sources.count ? sources.coefficients[j] : 0;
    float squares = 0;
    for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
        const Pack<T, N> pack = mixed<N, kFactors>(sources, c, row, i, shape.cols);
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
    Factor factors[kMostSources];
    bool accumulate[kMostSources], wants_coefficient[kMostSources];
    int count;
    const float* coefficients;
    float* partials;
};

template <int N, class T>
__device__ __forceinline__ float dot_of(const Pack<T, N>& a, const Pack<T, N>& b) {
    float sum = 0;
#pragma unroll
    for (int k = 0; k < N; ++k) sum += load(a.at[k]) * load(b.at[k]);
    return sum;
}

// Of sources without a factor: products of this lane's packs. Of the others the gradients of the row's
// factors, which the first lane adds, and its share of dc.
template <int N, class T>
__device__ __forceinline__ void add_factor_gradients(const Gradients<T>& g, const float (&c)[kMostSources],
                                                     int64_t row, int64_t cols, float (&dc)[kMostSources]) {
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        const Factor& factor = g.factors[j];
        if (j >= g.count || !g.sources[j].data || !factor.data) continue;
        const int64_t width = cols / factor.columns;
        for (int64_t column = 0; column < factor.columns; ++column) {
            float products = 0;
            for (int64_t i = column * width + lane_index() * N; i < (column + 1) * width; i += kWarp * N)
                products += dot_of<N>(load_pack<N>(g.dy[row] + i), load_pack<N>(g.sources[j][row] + i));
            products = warp_sum(products);
            if (lane_index() != 0) continue;
            const int64_t at = row * factor.stride + column;
            if (g.wants_coefficient[j]) dc[j] += products * (factor.offset + factor.data[at]);
            if (factor.gradient) factor.gradient[at] += c[j] * products;
        }
    }
}

// Everything of a pack is read before any of it is written, but for what is added to: a tensor may appear
// twice there.
template <int N, bool kFactors, class T>
__device__ __forceinline__ void mix_backward_pack(const Gradients<T>& g, const float (&c)[kMostSources],
                                                  int64_t row, int64_t i, int64_t cols,
                                                  float (&dc)[kMostSources]) {
    const Pack<T, N> dy = load_pack<N>(g.dy[row] + i);
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        if (j >= g.count || !g.sources[j].data || (kFactors && g.factors[j].data)) continue;
        dc[j] += dot_of<N>(dy, load_pack<N>(g.sources[j][row] + i));
    }
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        if (j >= g.count || !g.dsources[j].data) continue;
        const float own = kFactors ? c[j] * factor_at(g.factors[j], row, i, cols) : c[j];
        T* const to = g.dsources[j][row] + i;
        Pack<T, N> ds;
        if (g.accumulate[j]) ds = load_pack<N>(to);
#pragma unroll
        for (int k = 0; k < N; ++k)
            store(ds.at[k], (g.accumulate[j] ? load(ds.at[k]) : 0) + own * load(dy.at[k]));
        store_pack(to, ds);
    }
}

template <class T, int N, bool kFactors>
__global__ void mix_backward_kernel(Gradients<T> g, Shape shape) {
    float c[kMostSources], dc[kMostSources];
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        c[j] = j < g.count ? g.coefficients[j] : 0;
        dc[j] = 0;
    }
    for (int64_t row = warp_index(); row < shape.rows; row += warp_count()) {
        if (kFactors) {
            add_factor_gradients<N>(g, c, row, shape.cols, dc);
            __syncwarp();  // all of the row is read before any of it is written
        }
        for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N)
            mix_backward_pack<N, kFactors>(g, c, row, i, shape.cols, dc);
    }
    if (!g.partials) return;
    float sums[1] = {};
#pragma unroll
    for (int j = 0; j < kMostSources; ++j) {
        const float sum = warp_sum(dc[j]);
        if (lane_index() == j) sums[0] = sum;
    }
    store_block_sums(sums, g.count, g.partials + blockIdx.x * g.count);
}

// Whether a pack of 16 bytes has one factor.
bool factor_packs(const Factor& factor, Scalar type, int64_t cols) {
    return factor.data == nullptr || cols / factor.columns % (type == Scalar::f32 ? 4 : 8) == 0;
}

// Calls body(T{}, std::integral_constant<int, N>, std::bool_constant<kFactors>).
template <class Body>
void with_forms(Scalar type, bool packed, bool factors, const Body& body) {
    with_packs(type, packed, [&]<class T, class N>(T zero, N pack) {
        if (factors)
            body(zero, pack, std::true_type{});
        else
            body(zero, pack, std::false_type{});
    });
}

void mix(const Mix& mix, Shape shape, Stream stream) {
    bool packed = packs(mix.y, shape.cols) && packs(mix.normed, shape.cols), factors = false;
    for (int j = 0; j < mix.count; ++j) {
        packed = packed && packs(mix.sources[j], shape.cols) &&
                 factor_packs(mix.factors[j], mix.y.type, shape.cols);
        factors = factors || mix.factors[j].data;
    }
    with_forms(
        mix.y.type, packed, factors,
        [&]<class T, int N, bool kFactors>(T, std::integral_constant<int, N>, std::bool_constant<kFactors>) {
            Sources<T> sources{{}, {}, mix.count, mix.coefficients};
            for (int j = 0; j < mix.count; ++j) {
                sources.rows[j] = rows_of<const T>(mix.sources[j]);
                sources.factors[j] = mix.factors[j];
            }
            launch(mix_kernel<T, N, kFactors>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
                   sources, rows_of<T>(mix.y), rows_of<T>(mix.normed), mix.rstd, mix.eps, shape);
        });
}

void mix_backward(const MixBackward& mix, Shape shape, Stream stream) {
    bool packed = packs(mix.dy, shape.cols), wants_dc = false, factors = false;
    for (int j = 0; j < mix.count; ++j) {
        packed = packed && packs(mix.sources[j], shape.cols) && packs(mix.dsources[j], shape.cols) &&
                 factor_packs(mix.factors[j], mix.dy.type, shape.cols);
        wants_dc = wants_dc || mix.wants_coefficient[j];
        factors = factors || mix.factors[j].data;
    }
    const int64_t blocks = partial_blocks(shape.rows);
    with_forms(
        mix.dy.type, packed, factors,
        [&]<class T, int N, bool kFactors>(T, std::integral_constant<int, N>, std::bool_constant<kFactors>) {
            Gradients<T> g{rows_of<const T>(mix.dy),         {}, {}, {}, {}, {}, mix.count, mix.coefficients,
                           wants_dc ? mix.partials : nullptr};
            for (int j = 0; j < mix.count; ++j) {
                g.sources[j] = rows_of<const T>(mix.sources[j]);
                g.dsources[j] = rows_of<T>(mix.dsources[j]);
                g.factors[j] = mix.factors[j];
                g.accumulate[j] = mix.accumulate[j];
                g.wants_coefficient[j] = mix.wants_coefficient[j];
            }
            launch(mix_backward_kernel<T, N, kFactors>, blocks, kWarpsPerBlock * kWarp, stream, g, shape);
        });
    if (wants_dc)  // sums of those that nobody wants are zero
        add_partials(mix.partials, blocks, mix.count, mix.count, {mix.dcoefficients, Scalar::f32}, stream);
}

const Registration register_mix(&Kernels::mix, mix);
const Registration register_mix_backward(&Kernels::mix_backward, mix_backward);

}  // namespace
}  // namespace speedrun::cuda
