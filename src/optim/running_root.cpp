#include "optim/running_root.h"

#include <ATen/ATen.h>

#include <utility>

#include "ops/gemm.h"
#include "ops/optim/matrix_update.h"
#include "ops/optim/orthogonalize.h"

namespace speedrun {
namespace {

// (3 I - Z Y) / 2 for every pair.
void correction(const at::Tensor& z, const at::Tensor& y, const at::Tensor& out) {
    ops::batched_gemm(z, y, out, -0.5);
    out.diagonal(0, -2, -1).add_(1.5);
}

}  // namespace

void update_running_root(const at::Tensor& u, const at::Tensor& root, const MatrixConfig& config, bool due) {
    const auto& ortho = config.orthogonalize;
    const at::Tensor g =
        ops::normalized(u.size(1) > u.size(2) ? u.mT() : u, ortho.norm_safety, ortho.norm_eps).contiguous();
    at::Tensor y = at::empty_like(root), z = at::empty_like(root), next = at::empty_like(root);
    const at::Tensor half = at::empty_like(root);
    ops::batched_gemm(g, g.mT(), y);
    z.zero_().diagonal(0, -2, -1).fill_(1);
    for (int64_t i = 0; i < ortho.iters; ++i) {
        correction(z, y, half);
        ops::batched_gemm(y, half, next);
        std::swap(y, next);
        ops::batched_gemm(half, z, next);
        std::swap(z, next);
    }
    const double share = due ? 1 - config.preconditioner.beta : 0;
    const at::Tensor weight =
        ops::matrix_norms(u).ne(0) * at::where(ops::matrix_norms(root).eq(0), 1.0, share);
    root.lerp_(z, weight.view({-1, 1, 1}));
}

at::Tensor apply_running_root(const at::Tensor& u, const at::Tensor& root, const MatrixConfig& config) {
    const auto& ortho = config.orthogonalize;
    const at::Tensor g =
        config.preconditioner.normalize_input ? ops::normalized(u, ortho.norm_safety, ortho.norm_eps) : u;
    const at::Tensor x = at::empty_like(g);
    u.size(1) > u.size(2) ? ops::batched_gemm(g, root, x) : ops::batched_gemm(root, g, x);
    return x;
}

}  // namespace speedrun
