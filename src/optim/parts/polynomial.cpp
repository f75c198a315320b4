// Newton-Schulz or Polar Express (ops/optim/orthogonalize.h); with orthogonalize.power DynMuon's power of the
// singular values. There, of u with the shorter side first, s = ||u||_F + norm_eps, X = u / s, Y the polar
// factor and E = X X^T - I, (X X^T)^(p/2) Y is taken to second order: (I + d E + d (d - 1) / 2 E^2) Y s^p
// with d = p / 2.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "ops/gemm.h"
#include "ops/optim/orthogonalize.h"
#include "optim/orthogonality.h"
#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

double exponent(const SpectralPower& power, int64_t step) {
    const double at = static_cast<double>(step) / static_cast<double>(power.steps);
    return power.end + (power.start - power.end) / (1 + std::exp((at - power.middle) / power.width));
}

class Polynomial final : public PipelinePart {
  public:
    explicit Polynomial(const MatrixRuleInput& input)
        : config_(input.config.orthogonalize), row_(input.row) {}

    void apply(PipelineWork& work, const PartStep& step) override {
        work.u = ops::orthogonalize(work.direction, config_);
        if (config_.power) work.u = to_power(work.u, work.direction, step.numbers[0]);
    }
    std::vector<double> step_numbers(const RuleStep& step) const override {
        if (!config_.power) return {};
        return {exponent(*config_.power, step.run_step)};
    }
    bool reads_fp32() const override { return config_.power.has_value(); }

    RuleCost cost() const override {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const int64_t k = std::min(rows, cols), size = rows * cols, gram = k * k;
        const int64_t item = config_.dtype == Dtype::bf16 ? 2 : 4;
        // The iterate, its successor, the Gram matrix and the polynomial, and for tall matrices the result
        // turned back; powers in fp32.
        const int64_t iterating = 2 * item * size + 2 * item * gram + (rows > cols ? item * size : 0);
        const int64_t power = config_.power ? 4 * (5 * size + gram) : 0;
        const double products = config_.power ? 3 * 2 * static_cast<double>(k * size) : 0;
        return {orthogonalize_flop(rows, cols, config_) + products, std::max(iterating, power)};
    }

  private:
    at::Tensor to_power(const at::Tensor& polar, const at::Tensor& of, const ops::StepNumber& p) const {
        const bool tall = of.size(1) > of.size(2);
        const auto turned = [&](const at::Tensor& x) { return (tall ? x.mT() : x).contiguous(); };
        const at::Tensor norm = of_matrices(ops::matrix_norms(of)) + config_.norm_eps;
        const at::Tensor x = turned(of / norm), y = turned(polar.to(at::kFloat));
        const at::Tensor e = at::empty({x.size(0), x.size(1), x.size(1)}, x.options());
        ops::batched_gram(x, e);
        e.diagonal(0, -2, -1).sub_(1);
        const at::Tensor ey = at::empty_like(y), eey = at::empty_like(y);
        ops::batched_gemm(e, y, ey);
        ops::batched_gemm(e, ey, eey);
        const at::Tensor d = 0.5 * as_tensor(p, x.device());
        const at::Tensor sum = y + d * ey + d * (d - 1) * 0.5 * eey;
        const at::Tensor found = sum * norm.pow(2 * d);
        return tall ? found.mT().contiguous() : found;
    }

    MatrixConfig::Orthogonalize config_;
    OptimParamConfig row_;
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("polynomial")>(
    const MatrixRuleInput& input) {
    return std::make_unique<Polynomial>(input);
}

}  // namespace speedrun
