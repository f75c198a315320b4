// The momentum r divided in the eigenbases of Shampoo's matrices (optim/basis.h), for the matrices whose row
// in the optimizer's table does not say "off":
//   x = Q_L^T r Q_R; v <- beta2 v + (1 - beta2) x^2 (moments_of gradient: of Q_L^T g Q_R)
//   s = Q_L (x / d) Q_R^T, d = sqrt(v) + eps, or clamp: sqrt(max(v, eps)); then as long as r in `norm`
// and after the step, with the raw gradient g, L <- beta L + (1 - beta) g g^T, R likewise, and every n steps
// Q <- QR(L Q). Before the second step there is no basis: first "momentum" goes along r and ends with the
// eigenvectors of L and R; "basis" begins with those of g g^T and g^T g, and renews in its first step too.
// Gated (results 16 and 44 to 46): d is at least denominator_floor times its rms, and b = r + trust (s - r)
// (trust_gate.h), as long as r, is taken.
#include <ATen/ATen.h>

#include <algorithm>

#include "ops/optim/orthogonalize.h"
#include "optim/basis.h"
#include "optim/parts/direction_uses.h"
#include "optim/parts/part.h"
#include "optim/parts/table.h"
#include "optim/parts/trust_gate.h"

namespace speedrun {
namespace {

using Direction = MatrixConfig::Direction;

constexpr double kLeastLength = 1e-8;

// [n, 1, 1]; undefined: of no norm.
at::Tensor lengths(const at::Tensor& x, Direction::Norm norm) {
    if (norm == Direction::Norm::free) return {};
    return norm == Direction::Norm::frobenius ? of_matrices(ops::matrix_norms(x)) : ops::schatten4_norms(x);
}

void make_as_long(at::Tensor& x, const at::Tensor& length, Direction::Norm norm) {
    if (length.defined()) x = x * (length / lengths(x, norm).clamp_min(kLeastLength));
}

class SoapDirection final : public PipelinePart {
  public:
    explicit SoapDirection(const MatrixRuleInput& input)
        : config_(input.config.direction),
          basis_(input.config.preconditioner),
          row_(input.row),
          uses_(input.row) {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const auto options = input.part.value.options().dtype(at::kFloat);
        exp_avg_sq_ = at::zeros({uses_.count(), rows, cols}, options);
        for (size_t i = 0; i < 2; ++i) {
            const int64_t side = i == 0 ? rows : cols;
            sides_[i] = {at::zeros({uses_.count(), side, side}, options),
                         at::zeros({uses_.count(), side, side}, options)};
        }
    }

    void apply(PipelineWork& work, const PartStep& step) override {
        const DirectionUses::Group group = group_of(work);
        const bool from_basis_on = config_.first == Direction::First::basis;
        if (group.count == 0 || (step.t == 1 && !from_basis_on)) return;
        const Sides sides = sides_of(group);
        const at::Tensor g = group.take(work.grad), r = group.take(work.u);
        if (step.t == 1)
            for (size_t i = 0; i < 2; ++i) sides[i].basis.copy_(eigenvectors(outer_product(g, i)));
        const at::Tensor s = direction(r, g, sides, group, step.run_step);
        work.turn_to(group.index.defined() ? work.u.index_copy(0, group.index, s) : s);
    }

    void finish(PipelineWork& work, const PartStep& step) override {
        const DirectionUses::Group group = group_of(work);
        if (group.count == 0) return;
        const Sides sides = sides_of(group);
        const at::Tensor g = group.take(work.grad);
        const bool from_basis_on = config_.first == Direction::First::basis;
        const bool due = (from_basis_on ? step.t : step.t - 1) % basis_.every_n_steps == 0;
        for (size_t i = 0; i < 2; ++i) {
            sides[i].average.lerp_(outer_product(g, i), 1 - basis_.beta);
            if (step.t == 1 && !from_basis_on)
                sides[i].basis.copy_(eigenvectors(sides[i].average));
            else if (due)
                renew_basis(sides[i], group.of(exp_avg_sq_), i, config_.sort);
        }
    }

    bool alike() const override { return false; }
    bool reads_gradient() const override { return true; }
    bool reads_fp32() const override { return true; }
    std::vector<StateTensor> state() const override {
        if (uses_.count() == 0) return {};
        return {{"exp_avg_sq", exp_avg_sq_},
                {"rows_average", sides_[0].average},
                {"rows_basis", sides_[0].basis},
                {"cols_average", sides_[1].average},
                {"cols_basis", sides_[1].basis}};
    }

    // Into the bases and out again, and the averages; then L Q, the order of directions, and QR with its Q.
    RuleCost cost() const override {
        const auto& [matrices, rows, cols] = row_.matrix_view;
        const auto m = static_cast<double>(rows), n = static_cast<double>(cols);
        const int64_t side = std::max(rows, cols);
        double flop = 0;
        for (const double s : {m, n})
            flop += 3 * 2 * m * n * s + (4 + 8.0 / 3) * s * s * s / static_cast<double>(basis_.every_n_steps);
        const double share = static_cast<double>(uses_.count()) / static_cast<double>(matrices);
        // The first basis is found in fp64.
        return {flop * share, 4 * 5 * rows * cols + 4 * 8 * side * side};
    }

  private:
    DirectionUses::Group group_of(const PipelineWork& work) const {
        return uses_.group(work.begin, work.u.size(0), work.u.device());
    }

    Sides sides_of(const DirectionUses::Group& group) const {
        return {Side{group.of(sides_[0].average), group.of(sides_[0].basis)},
                Side{group.of(sides_[1].average), group.of(sides_[1].basis)}};
    }

    at::Tensor denominators(const at::Tensor& v, const at::Tensor& gated) const {
        at::Tensor d = config_.eps_form == MatrixConfig::EpsForm::add ? v.sqrt().add_(config_.eps)
                                                                      : v.clamp_min(config_.eps).sqrt_();
        if (!gated.defined() || config_.gate.denominator_floor == 0) return d;
        const at::Tensor rms = d.square().mean(at::IntArrayRef{-2, -1}, /*keepdim=*/true).sqrt_();
        const at::Tensor least = rms.mul_(config_.gate.denominator_floor).clamp_min_(kLeastLength);
        return at::where(gated, at::maximum(d, least), d);
    }

    at::Tensor direction(const at::Tensor& r, const at::Tensor& g, const Sides& sides,
                         const DirectionUses::Group& group, int64_t step) const {
        const at::Tensor x = into_basis(r, sides), v = group.of(exp_avg_sq_);
        const bool own = config_.moments_of == Direction::MomentsOf::momentum;
        const at::Tensor measured = own ? x : into_basis(g, sides);
        v.mul_(config_.beta2).addcmul_(measured, measured, 1 - config_.beta2);
        at::Tensor s = from_basis(x / denominators(v, group.gated), sides);
        const at::Tensor length = lengths(r, config_.norm);
        make_as_long(s, length, config_.norm);
        if (!group.gated.defined()) return s;
        const at::Tensor gate = of_matrices(trust(r, s, g, config_.gate, step));
        at::Tensor blend = r + (s - r) * gate;
        make_as_long(blend, length, config_.norm);
        return at::where(group.gated, blend, s);
    }

    Direction config_;
    MatrixConfig::Preconditioner basis_;
    OptimParamConfig row_;
    DirectionUses uses_;
    at::Tensor exp_avg_sq_;  // v, [n, rows, cols] of those that have the direction, fp32
    Sides sides_;
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("soap_direction")>(
    const MatrixRuleInput& input) {
    return std::make_unique<SoapDirection>(input);
}

}  // namespace speedrun
