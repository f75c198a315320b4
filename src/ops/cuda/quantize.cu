#include <cuda_fp8.h>

#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr int kTile = 64;
constexpr int kThreads = 256;
constexpr int kRowsAtOnce = kThreads / kTile;

// A block converts a tile, and writes it as it is and turned: both in runs of 64 bytes. Four more bytes a row
// put the column that a warp reads into different banks of shared memory.
template <class T>
__global__ void quantize_kernel(RowsOf<const T> from, float inverse_scale, __nv_fp8_interpretation_t format,
                                uint8_t* to, uint8_t* transposed, Shape shape, int64_t tiles_across) {
    __shared__ uint8_t tile[kTile][kTile + 4];
    const int64_t top = blockIdx.x / tiles_across * kTile, left = blockIdx.x % tiles_across * kTile;
    const int x = static_cast<int>(threadIdx.x) % kTile, y = static_cast<int>(threadIdx.x) / kTile;
    for (int k = y; k < kTile; k += kRowsAtOnce) {
        const int64_t row = top + k, col = left + x;
        if (row >= shape.rows || col >= shape.cols) continue;
        const uint8_t byte =
            __nv_cvt_float_to_fp8(load(from[row][col]) * inverse_scale, __NV_SATFINITE, format);
        to[row * shape.cols + col] = byte;
        tile[k][x] = byte;
    }
    if (!transposed) return;
    __syncthreads();
    for (int k = y; k < kTile; k += kRowsAtOnce) {
        const int64_t row = top + x, col = left + k;
        if (row < shape.rows && col < shape.cols) transposed[col * shape.rows + row] = tile[x][k];
    }
}

}  // namespace

void quantize(Rows from, float scale, Fp8 format, uint8_t* to, uint8_t* transposed, Shape shape,
              Stream stream) {
    const int64_t across = blocks_for(shape.cols, kTile), down = blocks_for(shape.rows, kTile);
    with_scalar(from.type, [&]<class T>(T) {
        launch(quantize_kernel<T>, across * down, kThreads, stream, rows_of<const T>(from), 1 / scale,
               format == Fp8::e4m3 ? __NV_E4M3 : __NV_E5M2, to, transposed, shape, across);
    });
}

int compute_capability() {
    int device = 0, major = 0, minor = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
        throw std::runtime_error("the GPU does not say what it is");
    return 10 * major + minor;
}

}  // namespace speedrun::cuda
