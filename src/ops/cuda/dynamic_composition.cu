// Blocks of kOwnRows rows, of queries or of keys, each of which meets a strip of `others`: the keys that the
// queries see, or the queries that see the keys. A strip's numbers are at [other * kStripStride + own]; a
// thread has one own row and every eighth other, so that element-wise steps need no barrier.
#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kThreads = kWarpsPerBlock * kWarp;
constexpr int kOwnRows = 16, kLanes = kThreads / kOwnRows;  // threads of an own row
constexpr int kOthers = 32;                 // rows of the strip that are in shared memory at a time
constexpr int kChannels = kThreads;         // channels that are
constexpr int kTileStride = kChannels + 1;  // rows begin in different banks
constexpr int kStripStride = kOwnRows + 4;  // the same, on boundaries of 16 bytes
constexpr int kStrips = 3;

// Of a block: strips of `rows` others, and the rows that are multiplied.
struct Shared {
    float *map, *map_grad, *work, *own, *other;
};
__device__ __forceinline__ Shared shared_of(int64_t rows) {
    auto* const strips = reinterpret_cast<float*>(dynamic_shared);
    const int64_t strip = rows * kStripStride;
    float* const tiles = strips + kStrips * strip;
    return {strips, strips + strip, strips + 2 * strip, tiles, tiles + kOwnRows * kTileStride};
}
int64_t strip_rows(int64_t window) {
    return blocks_for(window + kOwnRows - 1, kOthers) * kOthers;
}
int shared_bytes(int64_t window) {
    const int64_t numbers =
        kStrips * strip_rows(window) * kStripStride + int64_t{kOwnRows + kOthers} * kTileStride;
    return static_cast<int>(numbers * static_cast<int64_t>(sizeof(float)));
}

// A head's channels of a matrix [tokens, heads * d].
template <class T>
struct Head {
    RowsOf<const T> rows;
    int64_t at;
};

struct Document {
    int64_t begin, end;
};
// The document that token t lies in; cu_seqlens[last] is the number of tokens.
__device__ __forceinline__ Document document_of(const int32_t* cu_seqlens, int64_t last, int64_t t) {
    int64_t low = 0, high = last;  // cu_seqlens[low] <= t < cu_seqlens[high]
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        (cu_seqlens[middle] <= t ? low : high) = middle;
    }
    return {cu_seqlens[low], cu_seqlens[high]};
}

// This thread's rows.
__device__ __forceinline__ int own_row() {
    return static_cast<int>(threadIdx.x) / kLanes;
}
__device__ __forceinline__ int first_other() {
    return static_cast<int>(threadIdx.x) % kLanes;
}
template <class Body>
__device__ __forceinline__ void for_others(int64_t count, const Body& body) {
    for (int64_t j = first_other(); j < count; j += kLanes) body(j, j * kStripStride + own_row());
}

// Rows [first, first + count) of a head's channels from `channel` on; those that do not exist are zeros.
template <class T>
__device__ __forceinline__ void load_tile(const Head<T>& head, int64_t first, int count, int64_t channel,
                                          int64_t d, int64_t tokens, float* tile) {
    for (int index = static_cast<int>(threadIdx.x); index < count * kChannels; index += kThreads) {
        const int row = index / kChannels, c = index % kChannels;
        const bool there = first + row < tokens && channel + c < d;
        tile[row * kTileStride + c] = there ? load(head.rows[first + row][head.at + channel + c]) : 0.0F;
    }
}

// strip = others times own, sums over the channels. Each thread writes its own numbers.
template <class T>
__device__ void multiply(const Head<T>& own, int64_t own_first, const Head<T>& others, int64_t other_first,
                         int64_t count, int64_t d, int64_t tokens, const Shared& shared, float* strip) {
    constexpr int kSums = kOthers / kLanes;
    for (int64_t channel = 0; channel < d; channel += kChannels)
        for (int64_t j = 0; j < count; j += kOthers) {
            __syncthreads();
            if (j == 0) load_tile(own, own_first, kOwnRows, channel, d, tokens, shared.own);
            load_tile(others, other_first + j, kOthers, channel, d, tokens, shared.other);
            __syncthreads();
            float sums[kSums] = {};
            const float *left = shared.own + own_row() * kTileStride,
                        *right = shared.other + first_other() * kTileStride;
            for (int c = 0; c < kChannels; ++c)
#pragma unroll
                for (int m = 0; m < kSums; ++m) sums[m] += left[c] * right[m * kLanes * kTileStride + c];
#pragma unroll
            for (int m = 0; m < kSums; ++m) {
                float& to = strip[(j + first_other() + m * kLanes) * kStripStride + own_row()];
                to = channel == 0 ? sums[m] : to + sums[m];
            }
        }
}

// write(own row, channel, sum over the others of strip times their rows). A thread has a channel.
template <class T, class Write>
__device__ void apply(const float* strip, const Head<T>& others, int64_t other_first, int64_t count,
                      int64_t d, int64_t tokens, const Shared& shared, const Write& write) {
    for (int64_t channel = 0; channel < d; channel += kChannels) {
        float sums[kOwnRows] = {};
        for (int64_t j = 0; j < count; j += kOthers) {
            __syncthreads();
            load_tile(others, other_first + j, kOthers, channel, d, tokens, shared.other);
            __syncthreads();
            for (int row = 0; row < kOthers; ++row) {
                const float value = shared.other[row * kTileStride + threadIdx.x];
                const auto* const factors =
                    static_cast<const float*>(__builtin_assume_aligned(strip + (j + row) * kStripStride, 16));
#pragma unroll
                for (int i = 0; i < kOwnRows; ++i) sums[i] += factors[i] * value;
            }
        }
        if (channel + threadIdx.x < d)
#pragma unroll
            for (int i = 0; i < kOwnRows; ++i) write(i, channel + threadIdx.x, sums[i]);
    }
    __syncthreads();  // before the strip is written again
}

template <class T>
struct TypedComposition {
    RowsOf<const T> q, k, v;
    RowsOf<const float> w1, w2;
    const int32_t* cu_seqlens;
    int64_t documents, heads, d, window, tokens, rows;  // rows: of a strip
    float scale;

    __device__ Head<T> head(const RowsOf<const T>& x, int64_t h) const { return {x, h * d}; }
    // What w1 is multiplied by.
    __device__ float rstd(int64_t t) const {
        float sum = 0;
        for (int64_t h = 0; h < heads; ++h) sum += w1[t][h] * w1[t][h];
        return rsqrtf(sum / static_cast<float>(heads) + 1e-6F);  // ops::composition_eps
    }
};

// A block's queries, and which keys this thread's one sees.
struct Queries {
    template <class T>
    __device__ explicit Queries(const TypedComposition<T>& in)
        : first(static_cast<int64_t>(blockIdx.x) * kOwnRows),
          t(first + own_row()),
          exists(t < in.tokens),
          first_key(first < in.window ? 0 : first - in.window + 1) {
        const int64_t end = first + kOwnRows < in.tokens ? first + kOwnRows : in.tokens;
        keys = (end - first_key + kOthers - 1) / kOthers * kOthers;
        if (!exists) return;
        const int64_t document = document_of(in.cu_seqlens, in.documents, t).begin;
        oldest = t - in.window + 1 > document ? t - in.window + 1 : document;
    }
    __device__ bool sees(int64_t j) const { return exists && first_key + j >= oldest && first_key + j <= t; }

    int64_t first, t;
    bool exists;
    int64_t first_key, keys, oldest = 0;
};

struct Normaliser {
    float maximum, sum;
};

// shared.work becomes e^(score - maximum), zero where the query does not see the key.
template <class T>
__device__ Normaliser exponentials(const TypedComposition<T>& in, const Queries& at, int64_t h,
                                   const Shared& shared) {
    multiply(in.head(in.q, h), at.first, in.head(in.k, h), at.first_key, at.keys, in.d, in.tokens, shared,
             shared.work);
    float maximum = -1e30F, sum = 0;
    for_others(at.keys, [&](int64_t j, int64_t index) {
        const float score = shared.work[index] * in.scale;
        if (at.sees(j) && score > maximum) maximum = score;
    });
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(kAllLanes, maximum, distance);
        maximum = other > maximum ? other : maximum;
    }
    for_others(at.keys, [&](int64_t j, int64_t index) {
        float& number = shared.work[index];
        number = at.sees(j) ? expf(number * in.scale - maximum) : 0.0F;
        sum += number;
    });
    return {maximum, group_sum<kLanes>(sum)};
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    composition_kernel(TypedComposition<T> in, RowsOf<const T> y, RowsOf<T> out) {
    const Shared shared = shared_of(in.rows);
    const Queries at(in);
    const float rstd = at.exists ? in.rstd(at.t) : 0;
    for_others(at.keys, [&](int64_t, int64_t index) { shared.map[index] = 0; });
    for (int64_t h = 0; h < in.heads; ++h) {
        const Normaliser normaliser = exponentials(in, at, h, shared);
        const float share = at.exists ? in.w1[at.t][h] * rstd / normaliser.sum : 0;
        for_others(at.keys, [&](int64_t, int64_t index) { shared.map[index] += share * shared.work[index]; });
    }
    for (int64_t h = 0; h < in.heads; ++h)
        apply(shared.map, in.head(in.v, h), at.first_key, at.keys, in.d, in.tokens, shared,
              [&](int i, int64_t channel, float sum) {
                  const int64_t t = at.first + i, c = h * in.d + channel;
                  if (t < in.tokens) store(out[t][c], load(y[t][c]) + in.w2[t][h] * sum);
              });
}

template <class T>
struct TypedGradients {
    RowsOf<const T> dout;
    RowsOf<T> dq, dk, dv;
    RowsOf<float> dw1, dw2;
    float *lse, *u, *du;  // [tokens, heads]; formulas are in ops/dynamic_composition.cpp
    bool accumulate;
};

// dq, dw1 and dw2; and of every query lse, u and du.
template <class T>
__global__ void __launch_bounds__(kThreads)
    composition_query_backward_kernel(TypedComposition<T> in, TypedGradients<T> grads) {
    const Shared shared = shared_of(in.rows);
    const Queries at(in);
    const float rstd = at.exists ? in.rstd(at.t) : 0;
    const bool writes = at.exists && first_other() == 0;
    const int64_t row = at.t * in.heads;
    for_others(at.keys, [&](int64_t, int64_t index) { shared.map[index] = shared.map_grad[index] = 0; });
    for (int64_t h = 0; h < in.heads; ++h) {
        const Normaliser normaliser = exponentials(in, at, h, shared);
        const float u = at.exists ? in.w1[at.t][h] * rstd : 0, share = at.exists ? u / normaliser.sum : 0;
        for_others(at.keys, [&](int64_t, int64_t index) { shared.map[index] += share * shared.work[index]; });
        if (!writes) continue;
        grads.lse[row + h] = normaliser.maximum + logf(normaliser.sum);
        grads.u[row + h] = u;
    }
    for (int64_t h = 0; h < in.heads; ++h) {
        multiply(in.head(grads.dout, h), at.first, in.head(in.v, h), at.first_key, at.keys, in.d, in.tokens,
                 shared, shared.work);
        const float w2 = at.exists ? in.w2[at.t][h] : 0;
        float sum = 0;
        for_others(at.keys, [&](int64_t, int64_t index) {
            sum += shared.map[index] * shared.work[index];
            shared.map_grad[index] += w2 * shared.work[index];
        });
        sum = group_sum<kLanes>(sum);
        if (writes) grads.dw2[at.t][h] += sum;
    }
    for (int64_t h = 0; h < in.heads; ++h) {
        multiply(in.head(in.q, h), at.first, in.head(in.k, h), at.first_key, at.keys, in.d, in.tokens, shared,
                 shared.work);
        const float lse = at.exists ? grads.lse[row + h] : 0, u = at.exists ? grads.u[row + h] : 0;
        float du = 0;
        for_others(at.keys, [&](int64_t j, int64_t index) {
            float& number = shared.work[index];
            number = at.sees(j) ? expf(number * in.scale - lse) : 0.0F;
            du += number * shared.map_grad[index];
        });
        du = group_sum<kLanes>(du);
        for_others(at.keys,
                   [&](int64_t, int64_t index) { shared.work[index] *= u * (shared.map_grad[index] - du); });
        if (writes) grads.du[row + h] = du;
        apply(shared.work, in.head(in.k, h), at.first_key, at.keys, in.d, in.tokens, shared,
              [&](int i, int64_t channel, float sum) {
                  if (at.first + i < in.tokens)
                      store(grads.dq[at.first + i][h * in.d + channel], in.scale * sum);
              });
    }
    if (!writes) return;
    float mean = 0;
    for (int64_t h = 0; h < in.heads; ++h) mean += grads.u[row + h] * grads.du[row + h];
    mean /= static_cast<float>(in.heads);
    for (int64_t h = 0; h < in.heads; ++h)
        grads.dw1[at.t][h] += rstd * (grads.du[row + h] - grads.u[row + h] * mean);
}

// A block's keys, and the queries that see this thread's one: those before `end`. Queries count from `first`.
struct Keys {
    template <class T>
    __device__ explicit Keys(const TypedComposition<T>& in)
        : first(static_cast<int64_t>(blockIdx.x) * kOwnRows), s(first + own_row()) {
        const int64_t last =
            first + kOwnRows - 1 + in.window < in.tokens ? first + kOwnRows - 1 + in.window : in.tokens;
        queries = (last - first + kOthers - 1) / kOthers * kOthers;
        if (s >= in.tokens) return;
        const int64_t document = document_of(in.cu_seqlens, in.documents, s).end;
        end = s + in.window < document ? s + in.window : document;
    }
    __device__ bool seen_by(int64_t j) const { return first + j >= s && first + j < end; }

    int64_t first, s, queries, end = 0;
};

// shared.work becomes the head's probabilities.
template <class T>
__device__ void probabilities(const TypedComposition<T>& in, const TypedGradients<T>& grads, const Keys& at,
                              int64_t h, const Shared& shared) {
    multiply(in.head(in.k, h), at.first, in.head(in.q, h), at.first, at.queries, in.d, in.tokens, shared,
             shared.work);
    for_others(at.queries, [&](int64_t j, int64_t index) {
        float& number = shared.work[index];
        number = at.seen_by(j) ? expf(number * in.scale - grads.lse[(at.first + j) * in.heads + h]) : 0.0F;
    });
}

// dk and dv, after the kernel above.
template <class T>
__global__ void __launch_bounds__(kThreads)
    composition_key_backward_kernel(TypedComposition<T> in, TypedGradients<T> grads) {
    const Shared shared = shared_of(in.rows);
    const Keys at(in);
    for_others(at.queries, [&](int64_t, int64_t index) { shared.map[index] = shared.map_grad[index] = 0; });
    for (int64_t h = 0; h < in.heads; ++h) {
        probabilities(in, grads, at, h, shared);
        for_others(at.queries, [&](int64_t j, int64_t index) {
            if (at.seen_by(j))
                shared.map[index] += grads.u[(at.first + j) * in.heads + h] * shared.work[index];
        });
        multiply(in.head(in.v, h), at.first, in.head(grads.dout, h), at.first, at.queries, in.d, in.tokens,
                 shared, shared.work);
        for_others(at.queries, [&](int64_t j, int64_t index) {
            if (at.seen_by(j)) shared.map_grad[index] += in.w2[at.first + j][h] * shared.work[index];
        });
    }
    for (int64_t h = 0; h < in.heads; ++h) {
        for_others(at.queries, [&](int64_t j, int64_t index) {
            shared.work[index] = at.seen_by(j) ? in.w2[at.first + j][h] * shared.map[index] : 0.0F;
        });
        apply(shared.work, in.head(grads.dout, h), at.first, at.queries, in.d, in.tokens, shared,
              [&](int i, int64_t channel, float sum) {
                  if (at.first + i >= in.tokens) return;
                  T& to = grads.dv[at.first + i][h * in.d + channel];
                  store(to, grads.accumulate ? load(to) + sum : sum);
              });
    }
    for (int64_t h = 0; h < in.heads; ++h) {
        probabilities(in, grads, at, h, shared);
        for_others(at.queries, [&](int64_t j, int64_t index) {
            if (!at.seen_by(j)) return;
            const int64_t weight = (at.first + j) * in.heads + h;
            shared.work[index] *= grads.u[weight] * (shared.map_grad[index] - grads.du[weight]);
        });
        apply(shared.work, in.head(in.q, h), at.first, at.queries, in.d, in.tokens, shared,
              [&](int i, int64_t channel, float sum) {
                  if (at.first + i < in.tokens)
                      store(grads.dk[at.first + i][h * in.d + channel], in.scale * sum);
              });
    }
}

template <class T>
TypedComposition<T> typed(const Composition& in, Shape shape) {
    if (in.window > kMostComposedKeys)
        throw std::runtime_error("dynamic_composition: a longer window than the kernels hold");
    return {rows_of<const T>(in.q),
            rows_of<const T>(in.k),
            rows_of<const T>(in.v),
            rows_of<const float>(in.w1),
            rows_of<const float>(in.w2),
            in.cu_seqlens,
            in.documents,
            in.heads,
            shape.cols / in.heads,
            in.window,
            shape.rows,
            strip_rows(in.window),
            in.scale};
}

void dynamic_composition(const Composition& in, Rows y, Rows out, Shape shape, Stream stream) {
    with_scalar(in.q.type, [&]<class T>(T) {
        launch_with_shared(composition_kernel<T>, blocks_for(shape.rows, kOwnRows), kThreads,
                           shared_bytes(in.window), stream, typed<T>(in, shape), rows_of<const T>(y),
                           rows_of<T>(out));
    });
}

void dynamic_composition_backward(const Composition& in, const CompositionGrads& grads, Shape shape,
                                  Stream stream) {
    with_scalar(in.q.type, [&]<class T>(T) {
        const int64_t numbers = shape.rows * in.heads;
        const TypedGradients<T> gradients{rows_of<const T>(grads.dout),
                                          rows_of<T>(grads.dq),
                                          rows_of<T>(grads.dk),
                                          rows_of<T>(grads.dv),
                                          rows_of<float>(grads.dw1),
                                          rows_of<float>(grads.dw2),
                                          grads.scratch,
                                          grads.scratch + numbers,
                                          grads.scratch + 2 * numbers,
                                          grads.accumulate};
        for (const auto kernel : {composition_query_backward_kernel<T>, composition_key_backward_kernel<T>})
            launch_with_shared(kernel, blocks_for(shape.rows, kOwnRows), kThreads, shared_bytes(in.window),
                               stream, typed<T>(in, shape), gradients);
    });
}

const Registration register_composition(&Kernels::dynamic_composition, dynamic_composition);
const Registration register_composition_backward(&Kernels::dynamic_composition_backward,
                                                 dynamic_composition_backward);

}  // namespace
}  // namespace speedrun::cuda
