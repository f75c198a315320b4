#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace speedrun::ops {

// The most sources one mix takes.
inline constexpr size_t max_mix_sources = 8;

// y = sum_j c_j s_j, for lambdas, skip connections, value residuals, backout. sources: 1 to 8 tensors [T, d]
// (or [T, H, D]) of one dtype (fp32 or bf16), rows contiguous, any row stride; coefficients fp32 [n] on the
// same device. The sum is taken in fp32, in the order of the sources. y may be one of the sources.
void mix(std::span<const at::Tensor> sources, const at::Tensor& coefficients, const at::Tensor& y);

// mix, and normed = rms_norm(y) of y as stored, in the same pass; rstd fp32 [T] as in norm.h. normed may be a
// source, not y.
void mix_norm(std::span<const at::Tensor> sources, const at::Tensor& coefficients, double eps,
              const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd);

// ds_j = c_j dy (accumulate[j] == 0) or ds_j += c_j dy (accumulate[j] == 1), and dc_j += <dy, s_j> where
// wants_dc[j].
//   dsources      n tensors, an undefined one where no gradient is wanted. One of them may be dy or a source
//   itself:
//                 everything is read before it is written. They are written in order, so that the same tensor
//                 may appear twice where the later one accumulates (a source used twice); such a tensor must
//                 not be dy.
//   sources       s_j is read only where wants_dc[j]; elsewhere it may be undefined.
//   dcoefficients fp32 [n], added to; may be undefined where wants_dc is all zero.
void mix_backward(const at::Tensor& dy, std::span<const at::Tensor> sources, const at::Tensor& coefficients,
                  std::span<const at::Tensor> dsources, std::span<const uint8_t> accumulate,
                  const at::Tensor& dcoefficients, std::span<const uint8_t> wants_dc);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void mix(std::span<const at::Tensor> sources, const at::Tensor& coefficients, const at::Tensor& y);
void mix_norm(std::span<const at::Tensor> sources, const at::Tensor& coefficients, double eps,
              const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd);
void mix_backward(const at::Tensor& dy, std::span<const at::Tensor> sources, const at::Tensor& coefficients,
                  std::span<const at::Tensor> dsources, std::span<const uint8_t> accumulate,
                  const at::Tensor& dcoefficients, std::span<const uint8_t> wants_dc);
}  // namespace reference

}  // namespace speedrun::ops
