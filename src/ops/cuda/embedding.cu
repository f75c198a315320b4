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

// Sorted tokens are summed in chunks of kEmbeddingChunk, a block for each and a thread for each column, so
// that a frequent id is the work of many blocks. A run of one id that lies in a chunk goes to the table at
// once; one that crosses into other chunks leaves a sum in each of them, which the second kernel adds up in
// their order.
struct Chunk {
    int64_t begin, end, rows;
    const int32_t* sorted;

    __device__ Chunk(int64_t number, const int32_t* sorted_, int64_t rows_)
        : begin(number * kEmbeddingChunk),
          end(begin + kEmbeddingChunk < rows_ ? begin + kEmbeddingChunk : rows_),
          rows(rows_),
          sorted(sorted_) {}
    // Whether the run at k goes on at k + 1, and whether the chunk's first run began before it.
    __device__ bool goes_on(int64_t k) const { return k + 1 < rows && sorted[k + 1] == sorted[k]; }
    __device__ bool begins_before() const { return begin > 0 && goes_on(begin - 1); }
};

constexpr int kAtOnce = 8;  // tokens whose gradients are on their way together

// to[k] += sum[k]
template <int N, class To>
__device__ __forceinline__ void add_to(To* to, const float (&sum)[N]) {
    Pack<To, N> pack = load_pack<N>(to);
#pragma unroll
    for (int k = 0; k < N; ++k) store(pack.at[k], load(pack.at[k]) + sum[k]);
    store_pack(to, pack);
}

// partials [chunks, 2, cols]: the sum of the run that began before the chunk, that of the one that begins in
// it and goes on behind it.
template <class From, class To, int N>
__global__ void embedding_chunks_kernel(RowsOf<const From> dout, const int32_t* sorted, const int64_t* order,
                                        RowsOf<To> dtable, float* partials, Shape shape) {
    const Chunk chunk(blockIdx.x, sorted, shape.rows);
    float* const sums = partials + 2 * shape.cols * blockIdx.x;
    for (int64_t i = threadIdx.x * N; i < shape.cols; i += blockDim.x * N) {
        bool from_before = chunk.begins_before();
        Pack<float, N> sum{};
        for (int64_t first = chunk.begin; first < chunk.end; first += kAtOnce) {
            Pack<From, N> packs[kAtOnce];
#pragma unroll
            for (int j = 0; j < kAtOnce; ++j)
                if (first + j < chunk.end) packs[j] = load_pack<N>(dout[order[first + j]] + i);
#pragma unroll
            for (int j = 0; j < kAtOnce; ++j) {
                const int64_t k = first + j;
                if (k >= chunk.end) break;
#pragma unroll
                for (int n = 0; n < N; ++n) sum.at[n] += load(packs[j].at[n]);
                const bool on = chunk.goes_on(k);
                if (on && k + 1 < chunk.end) continue;
                if (from_before)
                    store_pack(sums + i, sum);
                else if (on)
                    store_pack(sums + shape.cols + i, sum);
                else
                    add_to(dtable[sorted[k]] + i, sum.at);
                from_before = false;
                sum = {};
            }
        }
    }
}

// A block for each chunk, which leaves at once where no run begins that other chunks go on with.
template <class To, int N>
__global__ void embedding_runs_kernel(const int32_t* sorted, RowsOf<To> dtable, const float* partials,
                                      Shape shape) {
    const Chunk chunk(blockIdx.x, sorted, shape.rows);
    const int32_t id = sorted[chunk.end - 1];
    if (!chunk.goes_on(chunk.end - 1) || (sorted[chunk.begin] == id && chunk.begins_before())) return;
    for (int64_t i = threadIdx.x * N; i < shape.cols; i += blockDim.x * N) {
        Pack<float, N> sum = load_pack<N>(partials + 2 * shape.cols * blockIdx.x + shape.cols + i);
        int64_t next = static_cast<int64_t>(blockIdx.x) + 1;
#pragma unroll 4
        for (; next * kEmbeddingChunk < shape.rows && sorted[next * kEmbeddingChunk] == id; ++next) {
            const Pack<float, N> more = load_pack<N>(partials + 2 * shape.cols * next + i);
#pragma unroll
            for (int k = 0; k < N; ++k) sum.at[k] += more.at[k];
        }
        add_to(dtable[id] + i, sum.at);
    }
}

// Calls body(From{}, To{}).
template <class Body>
void with_types(Scalar from, Scalar to, const Body& body) {
    with_scalar(from, [&]<class From>(From from_zero) {
        with_scalar(to, [&]<class To>(To to_zero) { body(from_zero, to_zero); });
    });
}

void embedding(Rows table, const int32_t* ids, Rows out, Shape shape, Stream stream) {
    const bool packed = table.type == out.type && packs(table, shape.cols) && packs(out, shape.cols);
    with_types(table.type, out.type, [&]<class From, class To>(From, To) {
        constexpr int kPack = sizeof(From) == sizeof(To) ? 16 / sizeof(From) : 1;
        launch(packed ? embedding_kernel<From, To, kPack> : embedding_kernel<From, To, 1>,
               row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream, rows_of<const From>(table), ids,
               rows_of<To>(out), shape);
    });
}

void embedding_backward(Rows dout, const int32_t* sorted, const int64_t* order, Rows dtable, float* partials,
                        Shape shape, Stream stream) {
    const int64_t chunks = blocks_for(shape.rows, kEmbeddingChunk);
    const auto run = [&]<class From, class To, int N>(From, To, std::integral_constant<int, N>) {
        const int threads = static_cast<int>(std::min<int64_t>(blocks_for(shape.cols, N * kWarp), 8)) * kWarp;
        launch(embedding_chunks_kernel<From, To, N>, chunks, threads, stream, rows_of<const From>(dout),
               sorted, order, rows_of<To>(dtable), partials, shape);
        launch(embedding_runs_kernel<To, N>, chunks, threads, stream, sorted, rows_of<To>(dtable), partials,
               shape);
    };
    with_types(dout.type, dtable.type, [&]<class From, class To>(From from, To to) {
        if (packs_of(4, dout, shape.cols) && packs_of(4, dtable, shape.cols))
            run(from, to, std::integral_constant<int, 4>{});
        else
            run(from, to, std::integral_constant<int, 1>{});
    });
}

const Registration register_embedding(&Kernels::embedding, embedding);
const Registration register_embedding_backward(&Kernels::embedding_backward, embedding_backward);

}  // namespace
}  // namespace speedrun::cuda
