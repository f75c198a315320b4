#include <algorithm>
#include <initializer_list>

#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

// Which head of which token a group of lanes works on, and its tables' rows.
template <class Table>
struct Heads {
    RowsOf<const Table> cos, sin;
    int64_t heads, half;  // half: pairs of a head

    __device__ int64_t token(int64_t index) const { return index / heads; }
    __device__ int64_t offset(int64_t index) const { return index % heads * 2 * half; }
};

// Of the groups of kLanes lanes of all warps, this thread's.
template <int kLanes>
__device__ __forceinline__ int64_t group_index() {
    return warp_index() * (kWarp / kLanes) + lane_index() / kLanes;
}

// kLanes lanes a head, N pairs at a time; pair i is elements i and half + i.
template <class T, class Table, int N, int kLanes>
__global__ void qk_norm_rotary_kernel(RowsOf<const T> x, Heads<Table> heads, float eps, RowsOf<T> y,
                                      float* rstd, int64_t count) {
    const int lane = lane_index() % kLanes;
    const int64_t own = group_index<kLanes>();
    const int64_t index = own < count ? own : count - 1;  // all lanes take part in sums
    const int64_t t = heads.token(index), half = heads.half;
    const T* from = x[t] + heads.offset(index);
    T* to = y[t] + heads.offset(index);
    float squares = 0;
    for (int64_t i = lane * N; i < 2 * half; i += kLanes * N) {
        const Pack<T, N> pack = load_pack<N>(from + i);
#pragma unroll
        for (int k = 0; k < N; ++k) squares += load(pack.at[k]) * load(pack.at[k]);
    }
    const float scale = rsqrtf(group_sum<kLanes>(squares) / static_cast<float>(2 * half) + eps);
    if (own >= count) return;
    if (lane == 0) rstd[index] = scale;
    for (int64_t i = lane * N; i < half; i += kLanes * N) {
        Pack<T, N> first = load_pack<N>(from + i), second = load_pack<N>(from + half + i);
        const Pack<Table, N> cos = load_pack<N>(heads.cos[t] + i), sin = load_pack<N>(heads.sin[t] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float n1 = scale * load(first.at[k]), n2 = scale * load(second.at[k]);
            store(first.at[k], n1 * load(cos.at[k]) + n2 * load(sin.at[k]));
            store(second.at[k], n2 * load(cos.at[k]) - n1 * load(sin.at[k]));
        }
        store_pack(to + i, first);
        store_pack(to + half + i, second);
    }
}

// The gradient of the rotation is its transpose.
__device__ __forceinline__ float2 rotated_back(float d1, float d2, float cos, float sin) {
    return {d1 * cos - d2 * sin, d1 * sin + d2 * cos};
}

template <class T, class Table, int N, int kLanes>
__global__ void qk_norm_rotary_backward_kernel(RowsOf<const T> dy, RowsOf<const T> x, Heads<Table> heads,
                                               const float* rstd, RowsOf<T> dx, int64_t count) {
    const int lane = lane_index() % kLanes;
    const int64_t own = group_index<kLanes>();
    const int64_t index = own < count ? own : count - 1;  // all lanes take part in sums
    const int64_t t = heads.token(index), half = heads.half;
    const T *above = dy[t] + heads.offset(index), *from = x[t] + heads.offset(index);
    T* to = dx[t] + heads.offset(index);
    float products = 0;
    for (int64_t i = lane * N; i < half; i += kLanes * N) {
        const Pack<T, N> d1 = load_pack<N>(above + i), d2 = load_pack<N>(above + half + i);
        const Pack<T, N> x1 = load_pack<N>(from + i), x2 = load_pack<N>(from + half + i);
        const Pack<Table, N> cos = load_pack<N>(heads.cos[t] + i), sin = load_pack<N>(heads.sin[t] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float2 dn = rotated_back(load(d1.at[k]), load(d2.at[k]), load(cos.at[k]), load(sin.at[k]));
            products += dn.x * load(x1.at[k]) + dn.y * load(x2.at[k]);
        }
    }
    const float scale = rstd[index];
    const float slope = scale * scale * scale * group_sum<kLanes>(products) / static_cast<float>(2 * half);
    if (own >= count) return;
    for (int64_t i = lane * N; i < half; i += kLanes * N) {
        Pack<T, N> d1 = load_pack<N>(above + i), d2 = load_pack<N>(above + half + i);
        const Pack<T, N> x1 = load_pack<N>(from + i), x2 = load_pack<N>(from + half + i);
        const Pack<Table, N> cos = load_pack<N>(heads.cos[t] + i), sin = load_pack<N>(heads.sin[t] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float2 dn = rotated_back(load(d1.at[k]), load(d2.at[k]), load(cos.at[k]), load(sin.at[k]));
            store(d1.at[k], scale * dn.x - slope * load(x1.at[k]));
            store(d2.at[k], scale * dn.y - slope * load(x2.at[k]));
        }
        store_pack(to + i, d1);
        store_pack(to + half + i, d2);
    }
}

// Calls body(T{}, Table{}, integral_constant N, integral_constant kLanes): in fours 16 lanes take 64 pairs.
template <class Body>
void with_types(Scalar type, Scalar table, bool fours, const Body& body) {
    with_scalar(type, [&]<class T>(T zero) {
        with_scalar(table, [&]<class Table>(Table table_zero) {
            if (fours)
                body(zero, table_zero, std::integral_constant<int, 4>{}, std::integral_constant<int, 16>{});
            else
                body(zero, table_zero, std::integral_constant<int, 1>{},
                     std::integral_constant<int, kWarp>{});
        });
    });
}

bool in_fours(std::initializer_list<Rows> all, int64_t half) {
    return std::ranges::all_of(all, [&](const Rows& rows) { return packs_of(4, rows, half); });
}

template <class Table>
Heads<Table> heads_of(const Rotary& rotary, Shape shape) {
    return {rows_of<const Table>(rotary.cos), rows_of<const Table>(rotary.sin), rotary.heads,
            shape.cols / rotary.heads / 2};
}

void qk_norm_rotary(Rows x, const Rotary& rotary, float eps, Rows y, float* rstd, Shape shape,
                    Stream stream) {
    const int64_t half = shape.cols / rotary.heads / 2, count = shape.rows * rotary.heads;
    with_types(x.type, rotary.cos.type, in_fours({x, y, rotary.cos, rotary.sin}, half),
               [&]<class T, class Table, int N, int kLanes>(T, Table, std::integral_constant<int, N>,
                                                            std::integral_constant<int, kLanes>) {
                   launch(qk_norm_rotary_kernel<T, Table, N, kLanes>,
                          blocks_for(count, kWarpsPerBlock * (kWarp / kLanes)), kWarpsPerBlock * kWarp,
                          stream, rows_of<const T>(x), heads_of<Table>(rotary, shape), eps, rows_of<T>(y),
                          rstd, count);
               });
}

void qk_norm_rotary_backward(Rows dy, Rows x, const Rotary& rotary, const float* rstd, Rows dx, Shape shape,
                             Stream stream) {
    const int64_t half = shape.cols / rotary.heads / 2, count = shape.rows * rotary.heads;
    with_types(x.type, rotary.cos.type, in_fours({dy, x, dx, rotary.cos, rotary.sin}, half),
               [&]<class T, class Table, int N, int kLanes>(T, Table, std::integral_constant<int, N>,
                                                            std::integral_constant<int, kLanes>) {
                   launch(qk_norm_rotary_backward_kernel<T, Table, N, kLanes>,
                          blocks_for(count, kWarpsPerBlock * (kWarp / kLanes)), kWarpsPerBlock * kWarp,
                          stream, rows_of<const T>(dy), rows_of<const T>(x), heads_of<Table>(rotary, shape),
                          rstd, rows_of<T>(dx), count);
               });
}

const Registration register_qk_norm_rotary(&Kernels::qk_norm_rotary, qk_norm_rotary);
const Registration register_qk_norm_rotary_backward(&Kernels::qk_norm_rotary_backward,
                                                    qk_norm_rotary_backward);

}  // namespace
}  // namespace speedrun::cuda
