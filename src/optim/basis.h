#pragma once
// Eigenbases of Shampoo's matrices, as SOAP (arXiv 2409.11321) keeps them.
#include <ATen/core/Tensor.h>

#include <array>

namespace speedrun {

struct Side {
    at::Tensor average, basis;  // [n, side, side], fp32; undefined: left alone
};
using Sides = std::array<Side, 2>;  // of rows and columns

// G G^T of each matrix of g [n, rows, cols], side 0; G^T G, side 1.
at::Tensor outer_product(const at::Tensor& g, size_t side);

// Eigenvectors of each symmetric matrix by descending eigenvalue; found in fp64, in fp32.
at::Tensor eigenvectors(const at::Tensor& average);

// Q_L^T x Q_R and Q_L x Q_R^T. x [n, rows, cols].
at::Tensor into_basis(at::Tensor x, const Sides& sides);
at::Tensor from_basis(at::Tensor x, const Sides& sides);

// One step of power iteration, Q <- QR(L Q); with `sort` directions are brought into the order of diag(Q^T L
// Q), descending, before, and the rows of v [n, rows, cols] (of side 1 columns) follow theirs.
void renew_basis(const Side& side, const at::Tensor& v, size_t which, bool sort);

}  // namespace speedrun
