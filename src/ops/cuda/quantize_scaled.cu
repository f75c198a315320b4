#include "ops/cuda/fp8.cuh"

namespace speedrun::cuda {
namespace {

static_assert(kMostMaxima == kPartialSets * kWarpsPerBlock);
constexpr float kLargest = 448, kLeastAmax = 1e-12F;

// NaN stays NaN, which fmaxf would hide.
__device__ __forceinline__ float larger(float a, float b) {
    return b > a || b != b ? b : a;
}

__device__ __forceinline__ float warp_largest(float x) {
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2)
        x = larger(x, __shfl_xor_sync(kAllLanes, x, distance));
    return x;
}
__device__ __forceinline__ void store_largest(float own, float* maxima) {
    const float most = warp_largest(own);
    if (lane_index() == 0) maxima[warp_index()] = most;
}

// ---- bytes

// The number that is rounded to 8 bits.
template <class T>
__device__ __forceinline__ float scaled_number(float x, float scale, QuantizeOrder order) {
    if (order == QuantizeOrder::times) return x * scale;
    if (order == QuantizeOrder::over_inverse) return x * (1 / scale);
    const float quotient = x / scale;
    if (order == QuantizeOrder::divided) return quotient;
    T rounded;
    store(rounded, quotient);
    return load(rounded);
}

// With `squared`, of y = max(x, 0)^2, which is stored. maxima: null, or room for the launch's warps.
template <bool squared, class T, int N>
__global__ void quantize_scaled_kernel(RowsOf<const T> from, RowsOf<T> y, const float* scale,
                                       QuantizeOrder order, RowsOf<uint8_t> to, float* maxima, Shape shape) {
    const float by = *scale;
    float most = 0;
    for (int64_t row = warp_index(); row < shape.rows; row += warp_count())
        for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
            Pack<T, N> pack = load_pack<N>(from[row] + i);
            float scaled[N];
#pragma unroll
            for (int k = 0; k < N; ++k) {
                if (squared) {
                    const float x = load(pack.at[k]), root = x <= 0 ? 0 : x;
                    store(pack.at[k], root * root);
                }
                const float number = load(pack.at[k]);
                most = larger(most, fabsf(number));
                scaled[k] = scaled_number<T>(number, by, order);
            }
            if (squared) store_pack(y[row] + i, pack);
            store_pack(to[row] + i, to_fp8(scaled, __NV_E4M3));
        }
    if (maxima) store_largest(most, maxima);
}

// ---- scales

template <class T, int N>
__global__ void maxima_kernel(RowsOf<const T> x, float* maxima, Shape shape) {
    float most = 0;
    for (int64_t row = warp_index(); row < shape.rows; row += warp_count())
        for (int64_t i = lane_index() * N; i < shape.cols; i += kWarp * N) {
            const Pack<T, N> pack = load_pack<N>(x[row] + i);
#pragma unroll
            for (int k = 0; k < N; ++k) most = larger(most, fabsf(load(pack.at[k])));
        }
    store_largest(most, maxima);
}

// amax / 448, each number rounded to T.
template <class T>
__device__ __forceinline__ float exact_scale(float amax) {
    T rounded, quotient;
    store(rounded, amax);
    store(quotient, load(rounded) / kLargest);
    return load(quotient);
}

// One warp.
__global__ void scale_kernel(Fp8Scale scale, int64_t count) {
    float most = 0;
    for (int64_t i = lane_index(); i < count; i += kWarp) most = larger(most, scale.maxima[i]);
    most = warp_largest(most);
    if (lane_index() != 0) return;
    const float amax = most < kLeastAmax ? kLeastAmax : most;
    if (scale.now) {
        scale.now[0] = 1 / amax * kLargest;
        scale.now[1] = *scale.weight_scale * amax / kLargest;
        scale.now[2] = 1;
    }
    if (scale.exact)
        *scale.exact =
            scale.exact_type == Scalar::f32 ? exact_scale<float>(amax) : exact_scale<__nv_bfloat16>(amax);
    if (scale.replaced) *scale.replaced = *scale.delayed;
    if (scale.delayed && amax - amax == 0) *scale.delayed = amax * scale.headroom;
}

template <bool squared>
void quantize(Rows from, Rows y, const float* scale, QuantizeOrder order, uint8_t* to, float* maxima,
              Shape shape, Stream stream) {
    const bool packed = packs(from, shape.cols) && packs(y, shape.cols);
    const int64_t blocks = maxima ? partial_blocks(shape.rows) : row_blocks(shape.rows);
    with_packs(from.type, packed, [&]<class T, int N>(T, std::integral_constant<int, N>) {
        launch(quantize_scaled_kernel<squared, T, N>, blocks, kWarpsPerBlock * kWarp, stream,
               rows_of<const T>(from), rows_of<T>(y), scale, order, RowsOf<uint8_t>{to, shape.cols}, maxima,
               shape);
    });
}

void quantize_scaled(Rows from, const float* scale, QuantizeOrder order, uint8_t* to, float* maxima,
                     Shape shape, Stream stream) {
    quantize<false>(from, {}, scale, order, to, maxima, shape, stream);
}

void relu2_quantized(Rows x, Rows y, const float* scale, uint8_t* to, float* maxima, Shape shape,
                     Stream stream) {
    quantize<true>(x, y, scale, QuantizeOrder::over_inverse, to, maxima, shape, stream);
}

void fp8_maxima(Rows x, float* maxima, Shape shape, Stream stream) {
    with_packs(x.type, packs(x, shape.cols), [&]<class T, int N>(T, std::integral_constant<int, N>) {
        launch(maxima_kernel<T, N>, partial_blocks(shape.rows), kWarpsPerBlock * kWarp, stream,
               rows_of<const T>(x), maxima, shape);
    });
}

void fp8_scale(const Fp8Scale& scale, Shape shape, Stream stream) {
    launch(scale_kernel, 1, kWarp, stream, scale, partial_blocks(shape.rows) * kWarpsPerBlock);
}

const Registration register_quantize_scaled(&Kernels::quantize_scaled, quantize_scaled);
const Registration register_relu2_quantized(&Kernels::relu2_quantized, relu2_quantized);
const Registration register_fp8_maxima(&Kernels::fp8_maxima, fp8_maxima);
const Registration register_fp8_scale(&Kernels::fp8_scale, fp8_scale);

}  // namespace
}  // namespace speedrun::cuda
