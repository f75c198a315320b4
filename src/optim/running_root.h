#pragma once
#include <ATen/core/Tensor.h>

#include "config/config.h"

namespace speedrun {

// MomMuon (MuonVariants): what is averaged over steps is not the gradient but the preconditioner that would
// orthogonalise it, (G G^T)^(-1/2), found by the iteration of SWAN (arXiv 2412.13148).

// For each matrix of u [n, rows, cols], fp32: G = u / (||u||_F norm_safety + norm_eps), transposed where
// rows > cols; Y = G G^T, Z = I; `iters` times Y <- Y (3 I - Z Y) / 2, Z <- (3 I - Z Y) Z / 2, with the old Z
// and Y on the right. root <- Z where there is none yet, that is all are zero; else, where it is due,
// root + (1 - preconditioner.beta) (Z - root). A zero u has no root: the iteration would make one of
// 1.5^iters I, and layers behind one that begins with zeros have no gradient in the first step. root is
// [n, k, k], k = min(rows, cols), fp32.
void update_running_root(const at::Tensor& u, const at::Tensor& root, const MatrixConfig& config, bool due);

// root u, or u root where rows > cols. As published it is u that is multiplied, although the root is that of
// u / ||u||, so the result is as long as u; with preconditioner.normalize_input it is u / ||u||.
at::Tensor apply_running_root(const at::Tensor& u, const at::Tensor& root, const MatrixConfig& config);

}  // namespace speedrun
