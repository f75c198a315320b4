#include "ops/optim/orthogonalize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "model/parameters.h"
#include "ops/dtype.h"
#include "ops/gemm.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using Method = MatrixConfig::Orthogonalize::Method;

constexpr std::array<QuinticStep, 5> kPolarExpress = {{
    {8.156554524902461, -22.48329292557795, 15.878769915207462},
    {4.042929935166739, -2.808917465908714, 0.5000178451051316},
    {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
    {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
    {2.3465413258596377, -1.7097828382687081, 0.42323551169305323},
}};
constexpr QuinticStep kNewtonSchulz = {3.4445, -4.7750, 2.0315};

}  // namespace

at::Tensor normalized(const at::Tensor& x, double safety, double eps) {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor norm = at::linalg_vector_norm(wide, 2, at::IntArrayRef{-2, -1}, /*keepdim=*/true);
    return (wide / (norm * safety + eps)).to(x.scalar_type());
}

at::Tensor schatten4_norms(const at::Tensor& x) {
    const at::Tensor wide = (x.size(1) > x.size(2) ? x.mT() : x).to(at::kFloat).contiguous();
    const at::Tensor gram = at::empty({wide.size(0), wide.size(1), wide.size(1)}, wide.options());
    batched_gram(wide, gram);
    return at::linalg_vector_norm(gram, 2, at::IntArrayRef{-2, -1}, /*keepdim=*/true).sqrt();
}

std::vector<QuinticStep> orthogonalize_steps(Method method, int64_t iters,
                                             std::span<const double> coefficients) {
    check(iters >= 1, "orthogonalize: no iterations");
    std::vector<QuinticStep> steps;
    for (int64_t i = 0; !coefficients.empty() && i < iters; ++i) {
        const auto at = coefficients.begin() + 3 * std::min<int64_t>(i, std::ssize(coefficients) / 3 - 1);
        steps.push_back({at[0], at[1], at[2]});
    }
    if (!steps.empty()) return steps;
    if (method == Method::newton_schulz)
        return std::vector<QuinticStep>(static_cast<size_t>(iters), kNewtonSchulz);
    check(iters <= std::ssize(kPolarExpress), "orthogonalize: polar_express has 5 iterations");
    return {kPolarExpress.begin(), kPolarExpress.begin() + iters};
}

namespace {

// What the iteration begins with.
at::Tensor begun(const at::Tensor& x, const MatrixConfig::Orthogonalize& config) {
    if (config.norm == MatrixConfig::Orthogonalize::Norm::frobenius)
        return normalized(x, config.norm_safety, config.norm_eps);
    const at::Tensor norm = schatten4_norms(x).mul_(config.norm_safety).clamp_min_(config.norm_eps);
    return (x.to(at::kFloat) / norm).to(x.scalar_type());
}

}  // namespace

at::Tensor orthogonalize(const at::Tensor& g, const MatrixConfig::Orthogonalize& config) {
    check(g.dim() == 3, "orthogonalize: g is not [n, rows, cols]");
    check(config.method == Method::polar_express || config.method == Method::newton_schulz,
          "orthogonalize: no polynomial");
    const bool tall = g.size(1) > g.size(2);
    at::Tensor x = g.to(scalar_type(config.dtype));
    x = begun(tall ? x.mT() : x, config).contiguous();
    const at::Tensor gram = at::empty({x.size(0), x.size(1), x.size(1)}, x.options());
    const at::Tensor polynomial = at::empty_like(gram);
    at::Tensor next = at::empty_like(x);
    for (const auto& [a, b, c] : orthogonalize_steps(config.method, config.iters, config.coefficients)) {
        ops::batched_gram(x, gram);
        ops::batched_gram(gram, polynomial, c, b, gram);
        ops::batched_gemm(polynomial, x, next, 1, a, x);
        std::swap(x, next);
    }
    return tall ? x.mT().contiguous() : x;
}

}  // namespace speedrun::ops
