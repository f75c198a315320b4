#pragma once
// Matrix products in 8-bit floats with one scale a matrix, as the MLPs of records 84 and 89 have them
// (train_gpt.py, quantize_mlp_fp8; triton_kernels.py, linear_relu_square and
// quantize_transpose_mlp_down_weights).
//
// A matrix is divided by its scale, an fp32 [1] on the matrix's device, and rounded to e4m3: to the nearest
// number, of two the even one, and beyond +-448 to that. What comes of it are codes. Where the device
// multiplies 8-bit floats they are stored as Float8_e4m3fn; elsewhere as the numbers they stand for, in the
// matrix's own dtype, which holds them exactly. The roundings are the same everywhere; sums are not: the
// products of 8-bit floats of a GPU add up with fewer digits (fast accumulation) than fp32.
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

inline constexpr double fp8_largest = 448;
// Of a matrix of zeros the scale is this one's.
inline constexpr double fp8_least_amax = 1e-12;

// The dtype of codes of a matrix of dtype `own` on this device.
at::ScalarType fp8_storage(at::Device device, at::ScalarType own);

// What is rounded to e4m3.
enum class Fp8Order : uint8_t {
    times,            // x * scale in fp32: the scale is given as a factor
    over_inverse,     // x * (1 / scale) in fp32
    divided,          // x / scale in fp32
    divided_in_dtype  // x / scale rounded to x's dtype first
};

// to = e4m3(x by scale, as `order` says). x [R, C] fp32 or bf16, rows contiguous; `to` [R, C] of x's dtype or
// Float8_e4m3fn (then contiguous). NaN stays NaN.
void fp8_quantize(const at::Tensor& x, const at::Tensor& scale, Fp8Order order, const at::Tensor& to);

// max |x|, fp32 [1] on x's device; NaN where x has one. Does not wait for the device.
at::Tensor fp8_amax(const at::Tensor& x);

// scale = max(amax, 1e-12) / 448 in `dtype`'s arithmetic, that of the weights: bf16 in the records.
void fp8_exact_scale(const at::Tensor& amax, at::ScalarType dtype, const at::Tensor& scale);
// scale = max(amax, 1e-12) * (headroom / 448) in fp32, for a matrix that is to come. An amax that is not
// finite leaves the scale as it was, so that a step that is skipped does not spoil the next.
void fp8_delayed_scale(const at::Tensor& amax, double headroom, const at::Tensor& scale);

// Codes [rows, K] and the scale that they are to be multiplied by.
struct Fp8Matrix {
    at::Tensor codes, scale;
};

// c = a b^T * (a.scale * b.scale), summed in fp32 and rounded once. a [T, K], b [N, K] (any strides one of
// which is 1; contiguous where the codes are 8 bits wide), c [T, N] of fp32 or bf16, contiguous. 8-bit codes:
// CUDA only, c is bf16, all sizes are multiples of 16, and cuBLASLt adds up fast, as the records do.
void fp8_product(const Fp8Matrix& a, const Fp8Matrix& b, const at::Tensor& c);

// The product y = x w^T of record 84: x [T, K] scaled by its own amax now, w as codes [N, K]. x's codes are
// e4m3(x * (448 / amax)), the result is multiplied by w.scale * amax / 448.
void fp8_product_now(const at::Tensor& x, const Fp8Matrix& w, const at::Tensor& y);

// post = max(pre, 0)^2, and the product y = post w^T of record 89, where post is scaled by what is known of
// the pass before: its codes are e4m3(post * (1 / x_scale)). Afterwards x_scale is that of the next pass,
// from the amax of this post and the headroom. post may be pre.
void fp8_relu2_product(const at::Tensor& pre, const at::Tensor& post, const at::Tensor& x_scale,
                       double headroom, const Fp8Matrix& w, const at::Tensor& y);

// A weight's codes, by `scale`: the exact one, which it sets; that in next_scale, which takes its place; or
// the one given. next_scale is then the delayed scale of the quantisation after this one.
enum class Fp8WeightScale : uint8_t { exact, delayed, given };
void fp8_quantize_weight(const at::Tensor& weight, Fp8WeightScale which, Fp8Order order, double headroom,
                         const at::Tensor& scale, const at::Tensor& next_scale, const at::Tensor& to);

// to [C, R] = from^T, 8-bit codes on a GPU; R and C are multiples of 16.
void fp8_transpose(const at::Tensor& from, const at::Tensor& to);

// fp8_quantize on plain ATen calls (any device; fp64 too), for tests and for devices without a fast path.
namespace reference {
void fp8_quantize(const at::Tensor& x, const at::Tensor& scale, Fp8Order order, const at::Tensor& to);
}  // namespace reference

// The parts that the above are made of where codes are 8 bits wide. `to` is contiguous Float8_e4m3fn; maxima,
// fp32 [kMostMaxima], get the largest absolute number of each of the launch's warps.
namespace cuda {
// maxima may be undefined: they are then not looked for.
void fp8_quantize(const Gpu& gpu, const at::Tensor& x, const at::Tensor& scale, Fp8Order order,
                  const at::Tensor& to, const at::Tensor& maxima);
// y = max(x, 0)^2, and its codes and maxima; y may be x.
void fp8_relu2_quantize(const Gpu& gpu, const at::Tensor& x, const at::Tensor& scale, const at::Tensor& y,
                        const at::Tensor& to, const at::Tensor& maxima);
void fp8_maxima(const Gpu& gpu, const at::Tensor& x, const at::Tensor& maxima);
// From the maxima of x, as fp8_product_now needs them: [448 / amax, w_scale * amax / 448, 1].
void fp8_now_scales(const Gpu& gpu, const at::Tensor& x, const at::Tensor& maxima, const at::Tensor& w_scale,
                    const at::Tensor& scales);
// From the maxima of x, fp8_exact_scale (exact may be undefined) and fp8_delayed_scale; what that replaces
// goes to `replaced`, where it is defined.
void fp8_next_scales(const Gpu& gpu, const at::Tensor& x, const at::Tensor& maxima, double headroom,
                     const at::Tensor& exact, const at::Tensor& delayed, const at::Tensor& replaced);
}  // namespace cuda

}  // namespace speedrun::ops
