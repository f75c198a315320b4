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
    bool paired;

    __device__ int64_t token(int64_t index) const { return index / heads; }
    __device__ int64_t offset(int64_t index) const { return index % heads * 2 * half; }
    __device__ int64_t position(int64_t index) const {
        return paired ? 2 * token(index) + index % heads % 2 : token(index);
    }
};

// N pairs from the i-th on: in two packs, of each half, or of neighbours one after the other.
template <class T, int N, bool kNeighbours>
struct Pairs {
    Pack<T, N> one, two;

    __device__ static int64_t place(int64_t i, int64_t half, bool second) {
        if constexpr (kNeighbours) return 2 * i + (second ? N : 0);
        return second ? half + i : i;
    }
    __device__ void load_from(const T* head, int64_t i, int64_t half) {
        one = load_pack<N>(head + place(i, half, false));
        two = load_pack<N>(head + place(i, half, true));
    }
    __device__ void store_to(T* head, int64_t i, int64_t half) const {
        store_pack(head + place(i, half, false), one);
        store_pack(head + place(i, half, true), two);
    }
    __device__ T& first(int k) {
        if constexpr (kNeighbours) return 2 * k < N ? one.at[2 * k] : two.at[2 * k - N];
        return one.at[k];
    }
    __device__ T& second(int k) {
        if constexpr (kNeighbours) return 2 * k + 1 < N ? one.at[2 * k + 1] : two.at[2 * k + 1 - N];
        return two.at[k];
    }
};

// Of the groups of kLanes lanes of all warps, this thread's.
template <int kLanes>
__device__ __forceinline__ int64_t group_index() {
    return warp_index() * (kWarp / kLanes) + lane_index() / kLanes;
}

// kLanes lanes a head, N pairs at a time.
template <class T, class Table, int N, int kLanes, bool kNeighbours>
__global__ void qk_norm_rotary_kernel(RowsOf<const T> x, Heads<Table> heads, float eps, RowsOf<T> y,
                                      float* rstd, int64_t count) {
    const int lane = lane_index() % kLanes;
    const int64_t own = group_index<kLanes>();
    const int64_t index = own < count ? own : count - 1;  // all lanes take part in sums
    const int64_t t = heads.token(index), p = heads.position(index), half = heads.half;
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
        Pairs<T, N, kNeighbours> pairs;
        pairs.load_from(from, i, half);
        const Pack<Table, N> cos = load_pack<N>(heads.cos[p] + i), sin = load_pack<N>(heads.sin[p] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float n1 = scale * load(pairs.first(k)), n2 = scale * load(pairs.second(k));
            store(pairs.first(k), n1 * load(cos.at[k]) + n2 * load(sin.at[k]));
            store(pairs.second(k), n2 * load(cos.at[k]) - n1 * load(sin.at[k]));
        }
        pairs.store_to(to, i, half);
    }
}

// The gradient of the rotation is its transpose.
__device__ __forceinline__ float2 rotated_back(float d1, float d2, float cos, float sin) {
    return {d1 * cos - d2 * sin, d1 * sin + d2 * cos};
}

template <class T, class Table, int N, int kLanes, bool kNeighbours>
__global__ void qk_norm_rotary_backward_kernel(RowsOf<const T> dy, RowsOf<const T> x, Heads<Table> heads,
                                               const float* rstd, RowsOf<T> dx, int64_t count) {
    const int lane = lane_index() % kLanes;
    const int64_t own = group_index<kLanes>();
    const int64_t index = own < count ? own : count - 1;  // all lanes take part in sums
    const int64_t t = heads.token(index), p = heads.position(index), half = heads.half;
    const T *above = dy[t] + heads.offset(index), *from = x[t] + heads.offset(index);
    T* to = dx[t] + heads.offset(index);
    float products = 0;
    for (int64_t i = lane * N; i < half; i += kLanes * N) {
        Pairs<T, N, kNeighbours> d, own_x;
        d.load_from(above, i, half);
        own_x.load_from(from, i, half);
        const Pack<Table, N> cos = load_pack<N>(heads.cos[p] + i), sin = load_pack<N>(heads.sin[p] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float2 dn =
                rotated_back(load(d.first(k)), load(d.second(k)), load(cos.at[k]), load(sin.at[k]));
            products += dn.x * load(own_x.first(k)) + dn.y * load(own_x.second(k));
        }
    }
    const float scale = rstd[index];
    const float slope = scale * scale * scale * group_sum<kLanes>(products) / static_cast<float>(2 * half);
    if (own >= count) return;
    for (int64_t i = lane * N; i < half; i += kLanes * N) {
        Pairs<T, N, kNeighbours> d, own_x;
        d.load_from(above, i, half);
        own_x.load_from(from, i, half);
        const Pack<Table, N> cos = load_pack<N>(heads.cos[p] + i), sin = load_pack<N>(heads.sin[p] + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float2 dn =
                rotated_back(load(d.first(k)), load(d.second(k)), load(cos.at[k]), load(sin.at[k]));
            store(d.first(k), scale * dn.x - slope * load(own_x.first(k)));
            store(d.second(k), scale * dn.y - slope * load(own_x.second(k)));
        }
        d.store_to(to, i, half);
    }
}

// Calls body.operator()<T, Table, N, kLanes, kNeighbours>(): in fours 16 lanes take 64 pairs.
template <class Body>
void with_types(Scalar type, const Rotary& rotary, bool fours, const Body& body) {
    with_scalar(type, [&]<class T>(T) {
        with_scalar(rotary.cos.type, [&]<class Table>(Table) {
            if (fours && rotary.pairs)
                body.template operator()<T, Table, 4, 16, true>();
            else if (fours)
                body.template operator()<T, Table, 4, 16, false>();
            else if (rotary.pairs)
                body.template operator()<T, Table, 1, kWarp, true>();
            else
                body.template operator()<T, Table, 1, kWarp, false>();
        });
    });
}

bool in_fours(std::initializer_list<Rows> all, int64_t half) {
    return std::ranges::all_of(all, [&](const Rows& rows) { return packs_of(4, rows, half); });
}

template <class Table>
Heads<Table> heads_of(const Rotary& rotary, Shape shape) {
    return {rows_of<const Table>(rotary.cos), rows_of<const Table>(rotary.sin), rotary.heads,
            shape.cols / rotary.heads / 2, rotary.paired};
}

void qk_norm_rotary(Rows x, const Rotary& rotary, float eps, Rows y, float* rstd, Shape shape,
                    Stream stream) {
    const int64_t half = shape.cols / rotary.heads / 2, count = shape.rows * rotary.heads;
    with_types(x.type, rotary, in_fours({x, y, rotary.cos, rotary.sin}, half),
               [&]<class T, class Table, int N, int kLanes, bool kNeighbours>() {
                   launch(qk_norm_rotary_kernel<T, Table, N, kLanes, kNeighbours>,
                          blocks_for(count, kWarpsPerBlock * (kWarp / kLanes)), kWarpsPerBlock * kWarp,
                          stream, rows_of<const T>(x), heads_of<Table>(rotary, shape), eps, rows_of<T>(y),
                          rstd, count);
               });
}

void qk_norm_rotary_backward(Rows dy, Rows x, const Rotary& rotary, const float* rstd, Rows dx, Shape shape,
                             Stream stream) {
    const int64_t half = shape.cols / rotary.heads / 2, count = shape.rows * rotary.heads;
    with_types(x.type, rotary, in_fours({dy, x, dx, rotary.cos, rotary.sin}, half),
               [&]<class T, class Table, int N, int kLanes, bool kNeighbours>() {
                   launch(qk_norm_rotary_backward_kernel<T, Table, N, kLanes, kNeighbours>,
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
