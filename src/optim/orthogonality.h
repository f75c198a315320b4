#pragma once
#include <ATen/core/Tensor.h>

#include "config/config.h"

namespace speedrun {

// How near to orthogonal matrices are, and what it costs to bring them there.
struct SingularValues {
    double min = 0, max = 0;
    double in_band = 0;  // share of them in [0.7, 1.2], which Newton-Schulz' quintic was tuned for
};

// Of all matrices of x [n, rows, cols], in fp64.
SingularValues singular_values(const at::Tensor& x);

// n matrices [rows, cols], fp32, of random directions, with singular values from 1 down to 1 / condition in
// equal ratios; condition 0: normal numbers. Drawn from ATen's default generator.
at::Tensor matrices_of_condition(int64_t n, int64_t rows, int64_t cols, double condition);

// Any method but none, as the first step of a rule would have it; the preconditioner in its normalised form.
at::Tensor orthogonalized(const at::Tensor& g, const MatrixConfig& config);

// FLOP of one matrix, of its products alone, symmetric ones counted whole though little more than half of
// them is computed; of the preconditioner where it is made anew.
double orthogonalize_flop(int64_t rows, int64_t cols, const MatrixConfig::Orthogonalize& config);

}  // namespace speedrun
