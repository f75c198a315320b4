#include <cuda_pipeline.h>

#include <algorithm>

#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

using Bf16 = __nv_bfloat16;

constexpr int kTile = 128;  // rows and columns of c that a block computes
constexpr int kDepth = 32;  // columns of x in a stage
constexpr int kStages = 4;  // three on their way while one is multiplied
constexpr int kThreads = 256;
constexpr int kPack = 8;  // elements in 16 bytes
// Of rows in shared memory, so that the rows that a warp reads at once lie in different banks.
constexpr int kPitch = kDepth + kPack;
constexpr int kResultPitch = kTile + kPack;
constexpr int kStageElements = 2 * kTile * kPitch;

// A warp multiplies 64 rows by 32 columns.
constexpr int kWarpRows = 64, kWarpCols = 32;
constexpr int kLeft = kWarpRows / 16, kRight = kWarpCols / 8;  // fragments
static_assert(kThreads / kWarp * kWarpRows * kWarpCols == kTile * kTile);

constexpr int kSharedBytes =
    std::max<int>(kStages * kStageElements * sizeof(Bf16), kTile* kResultPitch * sizeof(float));

// A tile on the diagonal or above it: its matrix, and where in c it begins.
struct Tile {
    int64_t matrix;
    int64_t top, left;
};

__device__ Tile tile_of_block(int64_t rows) {
    const int across = static_cast<int>((rows + kTile - 1) / kTile), pairs = across * (across + 1) / 2;
    int row = 0, rest = static_cast<int>(blockIdx.x % pairs);
    for (; rest >= across - row; ++row) rest -= across - row;
    return {blockIdx.x / pairs, static_cast<int64_t>(row) * kTile, static_cast<int64_t>(row + rest) * kTile};
}

// Begins to copy columns [col, col + kDepth) of x's rows [top, top + kTile); zeros where there are none.
__device__ void begin_copy(Bf16* to, const Bf16* x, int64_t top, int64_t col, Shape shape) {
    constexpr int packs = kDepth / kPack;
    for (int i = static_cast<int>(threadIdx.x); i < kTile * packs; i += kThreads) {
        const int64_t row = top + i / packs, at = col + i % packs * kPack;
        const bool there = row < shape.rows && at < shape.cols;
        __pipeline_memcpy_async(to + i / packs * kPitch + i % packs * kPack,
                                there ? x + row * shape.cols + at : x, 16, there ? 0 : 16);
    }
}

// sums += rows of `a` times rows of `b`, of one stage.
__device__ void multiply(const Bf16* a, const Bf16* b, Sums (&sums)[kLeft][kRight]) {
    const int lane = lane_index();
    // Where this lane's row of four 8 x 8 matrices begins: rows 0-7 and 8-15 of `a`, then the same further
    // along k; of `b` first along k, then rows.
    a += lane % 16 * kPitch + lane / 16 * 8;
    b += (lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
        Left left[kLeft];
        Right right[kRight];
#pragma unroll
        for (int i = 0; i < kLeft; ++i) load_matrices(left[i].at, a + i * 16 * kPitch + k);
#pragma unroll
        for (int j = 0; j < kRight; j += 2) {
            uint32_t two[4];
            load_matrices(two, b + j * 8 * kPitch + k);
            right[j] = {two[0], two[1]};
            right[j + 1] = {two[2], two[3]};
        }
#pragma unroll
        for (int i = 0; i < kLeft; ++i)
#pragma unroll
            for (int j = 0; j < kRight; ++j) multiply_add(sums[i][j], left[i], right[j]);
    }
}

// A warp's sums into its part of the tile's.
__device__ void store_sums(float* to, const Sums (&sums)[kLeft][kRight]) {
    to += lane_index() / 4 * kResultPitch + lane_index() % 4 * 2;
#pragma unroll
    for (int i = 0; i < kLeft; ++i)
#pragma unroll
        for (int j = 0; j < kRight; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                *reinterpret_cast<float2*>(to + (i * 16 + half * 8) * kResultPitch + j * 8) = {
                    sums[i][j].at[2 * half], sums[i][j].at[2 * half + 1]};
}

// alpha * result + beta * addend into c and, for the mirrored tile, back into `result`.
__device__ void write_tile(float* result, const Gram& gram, const Tile& tile, int64_t rows) {
    auto* const c = static_cast<Bf16*>(gram.c) + tile.matrix * rows * rows;
    const auto* const addend =
        gram.addend ? static_cast<const Bf16*>(gram.addend) + tile.matrix * rows * rows : nullptr;
    constexpr int packs = kTile / kPack;
    for (int i = static_cast<int>(threadIdx.x); i < kTile * packs; i += kThreads) {
        const int64_t row = tile.top + i / packs, col = tile.left + i % packs * kPack;
        if (row >= rows || col >= rows) continue;
        float* const product = result + i / packs * kResultPitch + i % packs * kPack;
        Pack<Bf16, kPack> added{}, out;
        if (addend) added = load_pack<kPack>(addend + row * rows + col);
#pragma unroll
        for (int k = 0; k < kPack; ++k) {
            // The same rounding for an element and its mirror image, whatever the compiler fuses.
            product[k] = addend ? fmaf(gram.alpha, product[k], gram.beta * load(added.at[k]))
                                : gram.alpha * product[k];
            store(out.at[k], product[k]);
        }
        store_pack(c + row * rows + col, out);
    }
}

// Neighbouring threads write rows, so that they read neighbours in shared memory.
__device__ void write_mirrored(const float* result, const Gram& gram, const Tile& tile, int64_t rows) {
    auto* const c = static_cast<Bf16*>(gram.c) + tile.matrix * rows * rows;
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kTile / kPack; i += kThreads) {
        const int x = i % kTile, y = i / kTile * kPack;
        const int64_t row = tile.left + x, col = tile.top + y;
        if (row >= rows || col >= rows) continue;
        Pack<Bf16, kPack> out;
#pragma unroll
        for (int k = 0; k < kPack; ++k) store(out.at[k], result[(y + k) * kResultPitch + x]);
        store_pack(c + row * rows + col, out);
    }
}

__global__ void __launch_bounds__(kThreads, 2) gram_kernel(Gram gram, Shape shape) {
    auto* const stages = reinterpret_cast<Bf16*>(dynamic_shared);
    const Tile tile = tile_of_block(shape.rows);
    const auto* const x = static_cast<const Bf16*>(gram.x) + tile.matrix * shape.rows * shape.cols;
    const int64_t steps = (shape.cols + kDepth - 1) / kDepth;
    const auto begin_stage = [&](int64_t step) {
        Bf16* const stage = stages + step % kStages * kStageElements;
        if (step < steps) {
            begin_copy(stage, x, tile.top, step * kDepth, shape);
            begin_copy(stage + kTile * kPitch, x, tile.left, step * kDepth, shape);
        }
        __pipeline_commit();
    };

    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int row = warp % (kTile / kWarpRows) * kWarpRows, col = warp / (kTile / kWarpRows) * kWarpCols;
    Sums sums[kLeft][kRight] = {};
    for (int64_t step = 0; step < kStages - 1; ++step) begin_stage(step);
    for (int64_t step = 0; step < steps; ++step) {
        __pipeline_wait_prior(kStages - 2);
        __syncthreads();  // this stage is there, and nobody reads the one before it any more
        begin_stage(step + kStages - 1);
        const Bf16* const stage = stages + step % kStages * kStageElements;
        multiply(stage + row * kPitch, stage + (kTile + col) * kPitch, sums);
    }
    __pipeline_wait_prior(0);
    __syncthreads();

    auto* const result = reinterpret_cast<float*>(dynamic_shared);
    store_sums(result + row * kResultPitch + col, sums);
    __syncthreads();
    write_tile(result, gram, tile, shape.rows);
    if (tile.top == tile.left) return;
    __syncthreads();
    write_mirrored(result, gram, tile, shape.rows);
}

void gram(const Gram& gram, int64_t count, Shape shape, Stream stream) {
    const int64_t across = blocks_for(shape.rows, kTile);
    launch_with_shared(gram_kernel, count * (across * (across + 1) / 2), kThreads, kSharedBytes, stream, gram,
                       shape);
}

const Registration register_gram(&Kernels::gram, gram);

}  // namespace
}  // namespace speedrun::cuda
