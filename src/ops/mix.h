#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// The most sources one mix takes.
inline constexpr size_t max_mix_sources = 8;

// A source of a mix, and by what it is multiplied beside its coefficient: where `factor` is defined, by
// offset + factor[t, column], each of its C columns for d / C channels that follow each other.
struct MixSource {
    at::Tensor x;       // [T, d] (or [T, H, D])
    at::Tensor factor;  // fp32 [T, C], any token stride, columns contiguous; undefined: none
    double offset = 0;
};

// y = sum_j c_j (offset_j + factor_j) s_j, for lambdas, gates, skip connections, value residuals, backout,
// recombinations. 1 to 8 sources of one dtype (fp32 or bf16), rows contiguous, any row stride; coefficients
// fp32 [n] on the same device. The sum is taken in fp32, in the order of the sources. y may be one of the
// sources.
void mix(std::span<const MixSource> sources, const at::Tensor& coefficients, const at::Tensor& y);

// mix, and normed = rms_norm(y) of y as stored, in the same pass; rstd fp32 [T] as in norm.h. normed may be a
// source, not y.
void mix_norm(std::span<const MixSource> sources, const at::Tensor& coefficients, double eps,
              const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd);

// What the gradient of a source's term needs, and where it goes.
struct MixSourceGrad {
    MixSource source;  // x is read only where a gradient of coefficient or factor is wanted
    at::Tensor dx;     // undefined: not wanted
    bool accumulate = false;
    at::Tensor dfactor;  // as source.factor, added to; undefined: not wanted
    bool wants_coefficient = false;
};

// dx_j = c_j (offset_j + factor_j) dy, or dx_j += that; dc_j += sum (offset_j + factor_j) <dy, s_j>;
// dfactor_j
// += c_j <dy, s_j> over the channels of each column. One of the dx may be dy or a source itself: everything
// is read before it is written. They are written in order, so that the same tensor may appear twice where the
// later one accumulates (a source used twice); such a tensor must not be dy. dcoefficients: fp32 [n], may be
// undefined where none is wanted.
void mix_backward(const at::Tensor& dy, std::span<const MixSourceGrad> sources,
                  const at::Tensor& coefficients, const at::Tensor& dcoefficients);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
// fp32 columns [T, C] as numbers for every element of x [T, ...], each for channels that follow each other.
at::Tensor spread(const at::Tensor& columns, const at::Tensor& x);
void mix(std::span<const MixSource> sources, const at::Tensor& coefficients, const at::Tensor& y);
void mix_norm(std::span<const MixSource> sources, const at::Tensor& coefficients, double eps,
              const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd);
void mix_backward(const at::Tensor& dy, std::span<const MixSourceGrad> sources,
                  const at::Tensor& coefficients, const at::Tensor& dcoefficients);
}  // namespace reference

namespace cuda {
void mix(const Gpu& gpu, std::span<const MixSource> sources, const at::Tensor& coefficients,
         const at::Tensor& y);
void mix_norm(const Gpu& gpu, std::span<const MixSource> sources, const at::Tensor& coefficients, double eps,
              const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd);
void mix_backward(const Gpu& gpu, const at::Tensor& dy, std::span<const MixSourceGrad> sources,
                  const at::Tensor& coefficients, const at::Tensor& dcoefficients);
}  // namespace cuda

}  // namespace speedrun::ops
