#include "ops/cuda/fp8.cuh"

namespace speedrun::cuda {
namespace {

template <class T, int N>
__global__ void quantize_kernel(RowsOf<const T> from, float inverse_scale, __nv_fp8_interpretation_t format,
                                RowsOf<uint8_t> to, Shape shape) {
    for (int64_t row = warp_index(); row < shape.rows; row += warp_count())
        for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
            const Pack<T, N> pack = load_pack<N>(from[row] + i);
            float scaled[N];
#pragma unroll
            for (int k = 0; k < N; ++k) scaled[k] = load(pack.at[k]) * inverse_scale;
            store_pack(to[row] + i, to_fp8(scaled, format));
        }
}

// ---- bytes turned: a block takes a tile of 128 x 128, a thread 16 rows of 4 columns of it

constexpr int kTile = 128;
constexpr int kPiece = 16;  // bytes that are moved at once
constexpr int kPieces = kTile / kPiece;
constexpr int kThreads = 256;

// Four rows of four bytes as four columns.
__device__ __forceinline__ void turn(const uint32_t (&rows)[4], uint32_t (&columns)[4]) {
    const uint32_t left01 = permuted(rows[0], rows[1], 0x5140), left23 = permuted(rows[2], rows[3], 0x5140),
                   right01 = permuted(rows[0], rows[1], 0x7362), right23 = permuted(rows[2], rows[3], 0x7362);
    columns[0] = permuted(left01, left23, 0x5410);
    columns[1] = permuted(left01, left23, 0x7632);
    columns[2] = permuted(right01, right23, 0x5410);
    columns[3] = permuted(right01, right23, 0x7632);
}

// Pieces of 16 rows change places in shared memory by the number of those rows, so that the words that a warp
// reads at once, 4 of one row from each of 8 such groups, lie in different banks.
__global__ void transpose_kernel(const uint8_t* from, uint8_t* to, Shape shape, int64_t tiles_across) {
    __shared__ uint4 tile[kTile][kPieces];
    const int thread = static_cast<int>(threadIdx.x);
    const int64_t top = blockIdx.x / tiles_across * kTile, left = blockIdx.x % tiles_across * kTile;
    for (int i = thread; i < kTile * kPieces; i += kThreads) {
        const int row = i / kPieces, piece = i % kPieces;
        const int64_t x = left + piece * kPiece, y = top + row;
        if (y < shape.rows && x < shape.cols)
            tile[row][piece ^ row / kPiece] =
                load_word(reinterpret_cast<const uint4*>(from + y * shape.cols + x));
    }
    __syncthreads();
    const int group = thread % kPieces, word = thread / kPieces;  // rows 16 group ..., columns 4 word ...
    const int64_t x = left + word * 4, y = top + group * kPiece;
    if (y >= shape.rows || x >= shape.cols) return;
    uint32_t turned[4][4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        uint32_t rows[4], columns[4];
#pragma unroll
        for (int r = 0; r < 4; ++r)
            rows[r] = word_of(tile[group * kPiece + k * 4 + r][word / 4 ^ group], word % 4);
        turn(rows, columns);
#pragma unroll
        for (int c = 0; c < 4; ++c) turned[c][k] = columns[c];
    }
#pragma unroll
    for (int c = 0; c < 4; ++c)
        store_word(reinterpret_cast<uint4*>(to + (x + c) * shape.rows + y),
                   uint4{turned[c][0], turned[c][1], turned[c][2], turned[c][3]});
}

void quantize(Rows from, float scale, Fp8 format, uint8_t* to, Shape shape, Stream stream) {
    with_packs(from.type, packs(from, shape.cols), [&]<class T, int N>(T, std::integral_constant<int, N>) {
        launch(quantize_kernel<T, N>, row_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
               rows_of<const T>(from), 1 / scale, interpretation(format), RowsOf<uint8_t>{to, shape.cols},
               shape);
    });
}

void transpose_bytes(const uint8_t* from, uint8_t* to, Shape shape, Stream stream) {
    const int64_t across = blocks_for(shape.cols, kTile), down = blocks_for(shape.rows, kTile);
    launch(transpose_kernel, across * down, kThreads, stream, from, to, shape, across);
}

int compute_capability() {
    return 10 * device_attribute(cudaDevAttrComputeCapabilityMajor) +
           device_attribute(cudaDevAttrComputeCapabilityMinor);
}

const Registration register_quantize(&Kernels::quantize, quantize);
const Registration register_transpose_bytes(&Kernels::transpose_bytes, transpose_bytes);
const Registration register_compute_capability(&Kernels::compute_capability, compute_capability);

}  // namespace
}  // namespace speedrun::cuda
