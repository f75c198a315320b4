#include "ops/cuda/device.cuh"

namespace speedrun::cuda {
namespace {

constexpr float kSmallestSquare = 1e-8F;  // ops::xsa_smallest_square
constexpr int kMostHeads = 32;            // a lane for each

// NaN stays NaN, which fmaxf would hide.
__device__ __forceinline__ float counted(float square) {
    return square < kSmallestSquare ? kSmallestSquare : square;
}

// The sums of one warp over a head's channels, in all lanes.
template <class T>
__device__ __forceinline__ float dot(const T* a, const T* b, int64_t d) {
    float sum = 0;
    for (int64_t i = lane_index(); i < d; i += kWarp) sum += load(a[i]) * load(b[i]);
    return warp_sum(sum);
}

// One warp a head of a token.
template <class T, class A>
__global__ void xsa_kernel(RowsOf<const T> x, RowsOf<const T> v, const A* alpha, int64_t alpha_stride,
                           RowsOf<T> y, int64_t heads, Shape shape) {
    const int64_t d = shape.cols / heads;
    for (int64_t index = warp_index(); index < shape.rows * heads; index += warp_count()) {
        const int64_t t = index / heads, h = index % heads;
        const T *from = x[t] + h * d, *value = v[t] + h * d;
        const float square = counted(dot(value, value, d));
        const float take = tanhf(load(alpha[t * alpha_stride + h])) * (dot(from, value, d) / square);
        for (int64_t i = lane_index(); i < d; i += kWarp)
            store(y[t][h * d + i], load(from[i]) - take * load(value[i]));
    }
}

// One warp a token, head after head. Lane h has what head h adds to dalpha: to the token's own number, or to
// a sum over tokens.
template <class T, class A>
__global__ void xsa_backward_kernel(RowsOf<const T> dy, RowsOf<const T> x, RowsOf<const T> v, const A* alpha,
                                    int64_t alpha_stride, RowsOf<T> dx, RowsOf<T> dv, int64_t heads,
                                    float* dalpha_of_tokens, int64_t dalpha_stride, float* partials,
                                    Shape shape) {
    const int64_t d = shape.cols / heads;
    float dalpha[1] = {};
    for (int64_t t = warp_index(); t < shape.rows; t += warp_count())
        for (int64_t h = 0; h < heads; ++h) {
            const T *g = dy[t] + h * d, *from = x[t] + h * d, *value = v[t] + h * d;
            const float share = tanhf(load(alpha[t * alpha_stride + h])), own = dot(value, value, d);
            const float square = counted(own), above = dot(g, value, d);
            const float r = dot(from, value, d) / square, q = above / square;
            const float turned = own > kSmallestSquare ? 2 * r * q : 0;
            for (int64_t i = lane_index(); i < d; i += kWarp) {
                const float gi = load(g[i]), vi = load(value[i]);
                store(dv[t][h * d + i], -share * (r * gi + q * load(from[i]) - turned * vi));
                store(dx[t][h * d + i], gi - share * q * vi);
            }
            if (lane_index() != h) continue;
            const float here = -r * above * (1 - share * share);
            if (dalpha_of_tokens)
                dalpha_of_tokens[t * dalpha_stride + h] += here;
            else
                dalpha[0] += here;
        }
    if (!dalpha_of_tokens) store_block_sums(dalpha, heads, partials + blockIdx.x * heads);
}

// Calls body(T{}, A{}).
template <class Body>
void with_types(Scalar type, Scalar alpha, const Body& body) {
    with_scalar(type, [&]<class T>(T zero) {
        with_scalar(alpha, [&]<class A>(A alpha_zero) { body(zero, alpha_zero); });
    });
}

void xsa(Rows x, Rows v, XsaAlpha alpha, Rows y, int64_t heads, Shape shape, Stream stream) {
    with_types(x.type, alpha.numbers.type, [&]<class T, class A>(T, A) {
        launch(xsa_kernel<T, A>, row_blocks(shape.rows * heads), kWarpsPerBlock * kWarp, stream,
               rows_of<const T>(x), rows_of<const T>(v), static_cast<const A*>(alpha.numbers.data),
               alpha.stride, rows_of<T>(y), heads, shape);
    });
}

void xsa_backward(const XsaBackward& xsa, float* partials, Shape shape, Stream stream) {
    if (xsa.heads > kMostHeads) throw std::runtime_error("xsa: more heads than the kernel holds");
    const int64_t blocks = partial_blocks(shape.rows);
    float* const of_tokens = xsa.dalpha.stride > 0 ? static_cast<float*>(xsa.dalpha.numbers.data) : nullptr;
    with_types(xsa.x.type, xsa.alpha.numbers.type, [&]<class T, class A>(T, A) {
        launch(xsa_backward_kernel<T, A>, blocks, kWarpsPerBlock * kWarp, stream, rows_of<const T>(xsa.dy),
               rows_of<const T>(xsa.x), rows_of<const T>(xsa.v),
               static_cast<const A*>(xsa.alpha.numbers.data), xsa.alpha.stride, rows_of<T>(xsa.dx),
               rows_of<T>(xsa.dv), xsa.heads, of_tokens, xsa.dalpha.stride, partials, shape);
    });
    if (!of_tokens) add_partials(partials, blocks, xsa.heads, xsa.heads, xsa.dalpha.numbers, stream);
}

const Registration register_xsa(&Kernels::xsa, xsa);
const Registration register_xsa_backward(&Kernels::xsa_backward, xsa_backward);

}  // namespace
}  // namespace speedrun::cuda
