#include "optim/orthogonality.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "ops/optim/orthogonalize.h"
#include "optim/running_root.h"

namespace speedrun {
namespace {

using Method = MatrixConfig::Orthogonalize::Method;

// [n, rows, k] with orthonormal columns.
at::Tensor directions(int64_t n, int64_t rows, int64_t k) {
    return std::get<0>(at::linalg_qr(at::randn({n, rows, k}, at::kDouble)));
}

}  // namespace

SingularValues singular_values(const at::Tensor& x) {
    const at::Tensor values = at::linalg_svdvals(x.to(at::kDouble));
    const at::Tensor inside = values.ge(0.7).logical_and(values.le(1.2));
    return {values.min().item<double>(), values.max().item<double>(),
            inside.to(at::kDouble).mean().item<double>()};
}

at::Tensor matrices_of_condition(int64_t n, int64_t rows, int64_t cols, double condition) {
    if (condition == 0) return at::randn({n, rows, cols});
    const int64_t k = std::min(rows, cols);
    const at::Tensor values = at::logspace(0, -std::log10(condition), k, 10, at::kDouble);
    return (directions(n, rows, k) * values).matmul(directions(n, cols, k).mT()).to(at::kFloat);
}

at::Tensor orthogonalized(const at::Tensor& g, const MatrixConfig& config) {
    if (config.orthogonalize.method != Method::preconditioner)
        return ops::orthogonalize(g, config.orthogonalize);
    MatrixConfig normalised = config;
    normalised.preconditioner.normalize_input = true;
    const int64_t k = std::min(g.size(1), g.size(2));
    const at::Tensor root = at::zeros({g.size(0), k, k}, g.options());
    update_running_root(g, root, normalised, true);
    return apply_running_root(g, root, normalised);
}

double orthogonalize_flop(int64_t rows, int64_t cols, const MatrixConfig::Orthogonalize& config) {
    const auto [k, longer] = std::minmax(rows, cols);
    const auto narrow = static_cast<double>(k), wide = static_cast<double>(longer);
    const double product = 2 * narrow * narrow * wide, square = 2 * narrow * narrow * narrow;
    const auto iters = static_cast<double>(config.iters);
    if (config.method == Method::none) return 0;
    if (config.method == Method::preconditioner) return 2 * product + 3 * iters * square;
    const bool gram_norm = config.norm == MatrixConfig::Orthogonalize::Norm::schatten4;
    return iters * (2 * product + square) + (gram_norm ? product : 0);
}

}  // namespace speedrun
