#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <span>
#include <vector>

#include "config/config.h"

namespace speedrun::ops {

// One iteration X <- a X + (b A + c A A) X with A = X X^T: the odd quintic a s + b s^3 + c s^5 on every
// singular value.
struct QuinticStep {
    double a, b, c;
};

// The coefficients of each iteration.
// Without `coefficients`, three for each iteration, the last three for all after them:
// polar_express: arXiv 2505.16932, Algorithm 1, computed for 5 iterations, safety factor 2e-2, cushion 2;
// `iters` is 1 to 5 and takes the first ones. newton_schulz: (3.4445, -4.7750, 2.0315) each time,
// https://kellerjordan.github.io/posts/muon.
std::vector<QuinticStep> orthogonalize_steps(MatrixConfig::Orthogonalize::Method method, int64_t iters,
                                             std::span<const double> coefficients = {});

// Approximates U V^T of each matrix U S V^T of g [n, rows, cols]; the result has g's shape and config.dtype.
// Values are rounded to that dtype where the reference rounds: g itself, X / (||X||_F norm_safety +
// norm_eps) (schatten4: X / max(||X||_4 norm_safety, norm_eps)), and each of A, b A + c AA and the new X; in
// between everything is fp32. Tall matrices are worked on transposed, so A is the smaller square.
at::Tensor orthogonalize(const at::Tensor& g, const MatrixConfig::Orthogonalize& config);

// Each matrix of x [n, rows, cols] divided by ||x||_F * safety + eps, in x's dtype.
at::Tensor normalized(const at::Tensor& x, double safety, double eps);

// Schatten's norm of order 4 of each matrix of x [n, rows, cols], (sum of singular values^4)^(1/4), the root
// of
// ||x x^T||_F: [n, 1, 1], fp32.
at::Tensor schatten4_norms(const at::Tensor& x);

}  // namespace speedrun::ops
