#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 64;  // of a block's strip

struct Dims {
    int64_t count, rows, cols;
};

// sums[matrix][col] = the sum of squares of a column; a block takes a strip of columns of one matrix, a
// thread N of them.
template <class U, int N>
__global__ void column_squares_kernel(const U* update, float* sums, Dims dims, int64_t strips) {
    constexpr int across = kColumns / N, row_lanes = kThreads / across;
    __shared__ float parts[row_lanes][kColumns];
    const int64_t matrix = blockIdx.x / strips, left = blockIdx.x % strips * kColumns;
    const int thread = static_cast<int>(threadIdx.x), x = thread % across * N, y = thread / across;
    float squares[N] = {};
    if (left + x < dims.cols)
        for (int64_t row = y; row < dims.rows; row += row_lanes) {
            const Pack<U, N> pack = load_pack<N>(update + (matrix * dims.rows + row) * dims.cols + left + x);
#pragma unroll
            for (int k = 0; k < N; ++k) squares[k] += load(pack.at[k]) * load(pack.at[k]);
        }
#pragma unroll
    for (int k = 0; k < N; ++k) parts[y][x + k] = squares[k];
    __syncthreads();
    if (thread >= kColumns || left + thread >= dims.cols) return;
    float sum = 0;
    for (int k = 0; k < row_lanes; ++k) sum += parts[k][thread];
    sums[matrix * dims.cols + left + thread] = sum;
}

// sums[matrix][row] = the sum of squares of a row, by a warp.
template <class U, int N>
__global__ void row_squares_kernel(const U* update, float* sums, Dims dims) {
    const int64_t row = warp_index();
    if (row >= dims.count * dims.rows) return;
    float sum = 0;
    for (int64_t i = lane_index() * N; i < dims.cols; i += kWarp * N) {
        const Pack<U, N> pack = load_pack<N>(update + row * dims.cols + i);
#pragma unroll
        for (int k = 0; k < N; ++k) sum += load(pack.at[k]) * load(pack.at[k]);
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) sums[row] = sum;
}

// Every thread gets the same sum, formed in the same order.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float parts[kThreads / kWarp];
    x = warp_sum(x);
    __syncthreads();  // of the sum before
    if (lane_index() == 0) parts[threadIdx.x / kWarp] = x;
    __syncthreads();
    float sum = 0;
    for (int k = 0; k < kThreads / kWarp; ++k) sum += parts[k];
    return sum;
}

// A block a matrix: the second moment of its `length` rows or columns, of `across` elements each; the sums of
// squares become what their elements are multiplied by. Norms follow from those sums: ||u||^2 = sum of
// divisor^2 ||row||^2.
template <class V>
__global__ void second_moment_kernel(float* sums, V* second_moment, MatrixUpdate numbers, int64_t length,
                                     int64_t across) {
    float* const own = sums + blockIdx.x * length;
    V* const v = second_moment + blockIdx.x * length;
    const float correction = rounded(numbers.correction);
    float before = 0, after = 0;
    for (int64_t i = threadIdx.x; i < length; i += kThreads) {
        const float squares = own[i], moment = load(v[i]);
        store(v[i], moment + (1 - numbers.beta2) * (squares / static_cast<float>(across) - moment));
        const float corrected = load(v[i]) / correction;
        const float factor =
            numbers.eps_added ? 1 / (sqrtf(corrected) + numbers.eps) : rsqrtf(fmaxf(corrected, numbers.eps));
        own[i] = factor;
        before += squares;
        after += factor * factor * squares;
    }
    before = block_sum(before);
    after = block_sum(after);
    if (numbers.scale == MatrixUpdate::Scale::none) return;
    const float target = numbers.scale == MatrixUpdate::Scale::restore_norm
                             ? sqrtf(before)
                             : 0.2F * sqrtf(static_cast<float>(length) * static_cast<float>(across));
    const float scale = target / fmaxf(sqrtf(after), 1e-10F);
    for (int64_t i = threadIdx.x; i < length; i += kThreads) own[i] *= scale;
}

// Numbers as they are stored; with a mantissa fp32 ones, of which `value` has the upper halves.
template <class P>
__device__ __forceinline__ float whole(const P& value, uint16_t lower, bool joined) {
    return joined ? float_of(bits_of(load(value)) | lower) : load(value);
}
template <class P>
__device__ __forceinline__ void split(float whole, P& value, uint16_t& lower, bool joined) {
    lower = static_cast<uint16_t>(bits_of(whole) & 0xffffU);
    store(value, joined ? float_of(bits_of(whole) & 0xffff0000U) : whole);
}

// N neighbours in a row a thread.
template <class U, class P, class C, int N>
__global__ void apply_kernel(const U* update, P* value, C* copy, const float* divisors, MatrixUpdate numbers,
                             Dims dims) {
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
    const int64_t matrix = i / (dims.rows * dims.cols), col = i % dims.cols;
    if (matrix >= dims.count) return;
    const float lr = rounded(numbers.lr) * (numbers.lr_muls ? numbers.lr_muls[matrix] : 1),
                decay = rounded(numbers.decay), keep = static_cast<float>(1 - now(numbers.decay));
    const Pack<U, N> updates = load_pack<N>(update + i);
    Pack<P, N> values = load_pack<N>(value + i);
    Pack<C, N> copies;
    Pack<uint16_t, N> lower = {};
    const bool joined = numbers.mantissa != nullptr;
    if (joined) lower = load_pack<N>(numbers.mantissa + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
        float u = load(updates.at[k]) * numbers.factor;
        if (divisors) u *= divisors[numbers.of_rows ? i / dims.cols : matrix * dims.cols + col + k];
        if (numbers.factors) u *= numbers.factors[matrix];
        float p = whole(values.at[k], lower.at[k], joined);
        if (numbers.decay_kind == MatrixUpdate::Decay::cautious && u * p >= 0) u += decay * p;
        if (numbers.decay_kind == MatrixUpdate::Decay::decoupled) p *= keep;
        split(p - lr * u, values.at[k], lower.at[k], joined);
        store(copies.at[k], load(values.at[k]));
    }
    store_pack(value + i, values);
    if (joined) store_pack(numbers.mantissa + i, lower);
    if (copy) store_pack(copy + i, copies);
}

template <class U, int N>
void second_moments(const MatrixUpdate& numbers, const U* update, Dims dims, Stream stream) {
    const int64_t length = numbers.of_rows ? dims.rows : dims.cols,
                  across = numbers.of_rows ? dims.cols : dims.rows;
    if (numbers.of_rows) {
        launch(row_squares_kernel<U, N>, row_blocks(dims.count * dims.rows), kWarpsPerBlock * kWarp, stream,
               update, numbers.sums, dims);
    } else {
        const int64_t strips = blocks_for(dims.cols, kColumns);
        launch(column_squares_kernel<U, N>, dims.count * strips, kThreads, stream, update, numbers.sums, dims,
               strips);
    }
    with_scalar(numbers.second_moment.type, [&]<class V>(V) {
        launch(second_moment_kernel<V>, dims.count, kThreads, stream, numbers.sums,
               static_cast<V*>(numbers.second_moment.data), numbers, length, across);
    });
}

template <int N>
void update_in_packs(const MatrixUpdate& numbers, Dims dims, Stream stream) {
    with_scalar(numbers.update.type, [&]<class U>(U) {
        const auto* update = static_cast<const U*>(numbers.update.data);
        if (numbers.second_moment.data) second_moments<U, N>(numbers, update, dims, stream);
        with_scalar(numbers.value.type, [&]<class P>(P) {
            with_scalar(numbers.copy.type, [&]<class C>(C) {
                launch(apply_kernel<U, P, C, N>, blocks_for(dims.count * dims.rows * dims.cols, kThreads * N),
                       kThreads, stream, update, static_cast<P*>(numbers.value.data),
                       static_cast<C*>(numbers.copy.data),
                       numbers.second_moment.data ? numbers.sums : nullptr, numbers, dims);
            });
        });
    });
}

void matrix_update(const MatrixUpdate& numbers, int64_t count, int64_t rows, int64_t cols, Stream stream) {
    const Dims dims{count, rows, cols};
    if (fours(cols, {numbers.update, numbers.value, numbers.copy}))
        update_in_packs<4>(numbers, dims, stream);
    else
        update_in_packs<1>(numbers, dims, stream);
}

const Registration register_matrix_update(&Kernels::matrix_update, matrix_update);

}  // namespace
}  // namespace speedrun::cuda
