#include <algorithm>
#include <initializer_list>

#include "config/matrix_rules.h"
#include "config/sections.h"

namespace speedrun {
namespace {

void visit_momentum(Fields& f, MatrixConfig::Momentum& momentum) {
    f.choice(
        {"form", "lerp: m = mu m + (1 - mu) g; accumulate: m = mu m + g; none: the gradient", optional_key},
        momentum.form, std::array{"lerp", "accumulate", "none"});
    f.choice({"dtype", "of m: the gradient's, or fp32", optional_key}, momentum.dtype,
             std::array{"gradient", "fp32"});
    f.boolean({"nesterov", "update from gradient and momentum, not momentum alone", optional_key},
              momentum.nesterov);
    f.number({"min", "mu at the start and at the end", optional_key}, momentum.min, below_one);
    f.number({"max", "mu in between", optional_key}, momentum.max, below_one);
    f.integer({"warmup_steps", "from min to max", optional_key}, momentum.warmup_steps, steps_range);
    f.integer({"cooldown_steps", "from max back to min", optional_key}, momentum.cooldown_steps, steps_range);
}

void visit_power(Fields& f, SpectralPower& power) {
    constexpr NumberRange exponent{-1, 1};
    f.number({"start", "p long before the middle", optional_key}, power.start, exponent);
    f.number({"end", "p long after it", optional_key}, power.end, exponent);
    f.number({"middle", "where p is halfway, as a share of `steps`", optional_key}, power.middle,
             not_negative);
    f.number({"width", "of the change, as a share of `steps`", optional_key}, power.width, above_zero);
    f.integer({"steps", "what step counts in", optional_key}, power.steps, positive);
}

void visit_orthogonalize(Fields& f, MatrixConfig::Orthogonalize& ortho) {
    f.choice({"method",
              "coefficients of the iteration; preconditioner: a running average of (G G^T)^(-1/2); none: the "
              "momentum as it is",
              optional_key},
             ortho.method, std::array{"polar_express", "newton_schulz", "preconditioner", "none"});
    f.integer({"iters", "iterations", optional_key}, ortho.iters, {1, 20});
    f.choice({"dtype", "of the iteration's matrices", optional_key}, ortho.dtype, dtype_names);
    f.choice({"norm", "what X is divided by: frobenius, or schatten4, (sum of singular values^4)^(1/4)",
              optional_key},
             ortho.norm, std::array{"frobenius", "schatten4"});
    f.number({"norm_safety",
              "frobenius: X /= ||X|| * norm_safety + norm_eps; schatten4: max(||X|| * norm_safety, norm_eps)",
              optional_key},
             ortho.norm_safety, above_zero);
    f.number({"norm_eps", "see norm_safety", optional_key}, ortho.norm_eps, not_negative);
    f.numbers(
        {"coefficients",
         "a, b, c of each iteration X <- a X + (b A + c A A) X, A = X X^T, the last three for all after "
         "them; without it, the method's own",
         optional_key},
        ortho.coefficients, any_number, {3, 60});
    f.maybe(
        {"power",
         "singular values become s^p, not 1: p = end + (start - end) / (1 + exp((step / steps - middle) / "
         "width))",
         optional_key},
        ortho.power, visit_power);
}

void visit_preconditioner(Fields& f, MatrixConfig::Preconditioner& p) {
    f.integer({"every_n_steps", "made anew in the 1st, (n+1)-th, ... step", optional_key}, p.every_n_steps,
              {1, max_steps});
    f.number({"beta", "of its running average; 1: a sum (shampoo only)", optional_key}, p.beta, {0, 1});
    f.number({"eps", "shampoo: added to the diagonal", optional_key}, p.eps, not_negative);
    f.boolean({"normalize_input", "running root: multiplies u / ||u||, not u as published", optional_key},
              p.normalize_input);
    f.integer({"max_size", "shampoo and soap: longer sides are left as they are", optional_key}, p.max_size,
              {0, 1 << 20});
}

void visit_gate(Fields& f, MatrixConfig::Direction::Gate& gate) {
    f.number({"agreement", "cosine of direction and momentum below which it is shut", optional_key},
             gate.agreement, below_one);
    f.number({"denominator_floor", "the least denominators, as a share of their rms", optional_key},
             gate.denominator_floor, not_negative);
    constexpr NumberRange share{0, 1};
    f.number({"floor", "how far it is open at least before floor_until", optional_key}, gate.floor, share);
    f.integer({"floor_until", "step from which the floor falls", optional_key}, gate.floor_until,
              steps_range);
    f.integer({"floor_end", "step from which it is 0", optional_key}, gate.floor_end, steps_range);
    f.number({"cap", "how far it is open at most before cap_until", optional_key}, gate.cap, share);
    f.integer({"cap_until", "step from which there is no cap", optional_key}, gate.cap_until, steps_range);
}

void visit_soap_direction(Fields& f, MatrixConfig::Direction& direction) {
    f.choice({"eps_form", "clamp: x / sqrt(max(v, eps)); add: x / (sqrt(v) + eps)", optional_key},
             direction.eps_form, std::array{"clamp", "add"});
    f.choice({"moments_of", "of what the second moment is", optional_key}, direction.moments_of,
             std::array{"momentum", "gradient"});
    f.choice({"first", "the first step: along the momentum, or in bases of the first gradient", optional_key},
             direction.first, std::array{"momentum", "basis"});
    f.boolean({"sort", "directions by falling eigenvalue when bases are renewed", optional_key},
              direction.sort);
    f.choice({"norm", "which of the momentum's norms it has", optional_key}, direction.norm,
             std::array{"free", "frobenius", "schatten4"});
    f.object({"gate", "of matrices whose row says gated: trust in the direction", optional_key},
             [&](Fields& gate) { visit_gate(gate, direction.gate); });
}

void visit_direction(Fields& f, MatrixConfig::Direction& direction) {
    using Kind = MatrixConfig::Direction::Kind;
    f.choice({"kind", "what is made of the momentum before it is orthogonalised", optional_key},
             direction.kind,
             std::array{"momentum", "adam", "entries", "soap", "kl_soap", "powers", "shampoo"});
    const Kind kind = direction.kind;
    const auto of = [&](std::initializer_list<Kind> kinds) {
        return f.describes() || std::ranges::find(kinds, kind) != kinds.end();
    };
    if (of({Kind::adam, Kind::kl_soap, Kind::shampoo}))
        f.number({"beta1", "adam, kl_soap, shampoo: decay of the first moment", optional_key},
                 direction.beta1, below_one);
    if (of({Kind::adam, Kind::entries, Kind::soap, Kind::kl_soap, Kind::shampoo}))
        f.number({"beta2", "all but momentum and powers: decay of the second moment", optional_key},
                 direction.beta2, below_one);
    if (f.describes() || kind != Kind::momentum)
        f.number({"eps", "all but momentum: what keeps from division by 0", optional_key}, direction.eps,
                 above_zero);
    if (of({Kind::soap})) visit_soap_direction(f, direction);
    if (of({Kind::powers}))
        f.number({"exponent", "powers: of the covariances, negated", optional_key}, direction.exponent,
                 above_zero);
    if (of({Kind::shampoo}))
        f.integer({"start_step", "shampoo: the first step that has it, counted from 1; Adam's before",
                   optional_key},
                  direction.start_step, {1, max_steps});
}

void visit_length(Fields& f, MatrixConfig::Length& length) {
    f.choice(
        {"kind",
         "hyperball: ||p|| stays, and u counts as long as p; pinned: ||p|| becomes what the step along p "
         "makes of it",
         optional_key},
        length.kind, std::array{"free", "hyperball", "pinned"});
    f.number({"outward", "multiplies what the step takes p outward by", optional_key}, length.outward,
             not_negative);
    f.number({"inward", "multiplies what the step takes p inward by", optional_key}, length.inward,
             not_negative);
    f.number({"floor", "the least ||u|| / ||p||; 0: none", optional_key}, length.floor, not_negative);
    f.choice({"floor_of", "of the whole matrix, or of each row", optional_key}, length.floor_of,
             std::array{"matrix", "rows"});
}

void visit_row_norms(Fields& f, RowNorms& norms) {
    f.number({"target", "what the directions' length counts as at the end", optional_key}, norms.target,
             above_zero);
    f.number({"power", "of the share of `steps` gone", optional_key}, norms.power, above_zero);
    f.integer({"steps", "until the target", optional_key}, norms.steps, positive);
    f.number({"beta1", "of Adam, for the rows' lengths", optional_key}, norms.beta1, below_one);
    f.number({"beta2", "of Adam, for the rows' lengths", optional_key}, norms.beta2, below_one);
    f.number({"eps", "of Adam, for the rows' lengths", optional_key}, norms.eps, above_zero);
}

// The rule chooses what the keys after it are where they are absent.
void visit_rule(Fields& f, MatrixConfig& matrix) {
    std::array<const char*, matrix_rules.size()> names{};
    std::ranges::transform(matrix_rules, names.begin(), &MatrixRule::name);
    const size_t before = matrix_rule_index(matrix.rule);
    size_t index = before;
    f.pick({"rule", "what updates matrices; chooses every part that is not given"}, index, names);
    if (index != before) matrix = matrix_defaults(names[index]);
}

void visit_pipeline(Fields& f, MatrixConfig& matrix) {
    f.object({"direction", "of the momentum, before it is orthogonalised", optional_key},
             [&](Fields& d) { visit_direction(d, matrix.direction); });
    f.object({"orthogonalize", "towards the polar factor", optional_key},
             [&](Fields& o) { visit_orthogonalize(o, matrix.orthogonalize); });
    f.number({"contra", "X -= contra * u / ||u||_2, as long as before", optional_key}, matrix.contra,
             not_negative);
    f.choice({"signs", "of the entries: kept, or those of the gradient or the momentum", optional_key},
             matrix.signs, std::array{"keep", "gradient", "momentum"});
    f.choice({"second_moment", "what has a number of its own: rows, columns or matrices", optional_key},
             matrix.second_moment, std::array{"none", "rows", "columns", "longer_side", "matrix"});
    f.choice({"eps_form", "clamp: x / sqrt(max(v, eps)); add: x / (sqrt(v) + eps)", optional_key},
             matrix.eps_form, std::array{"clamp", "add"});
    f.boolean({"bias_correction", "of the second moment: v / (1 - beta2^t)", optional_key},
              matrix.bias_correction);
    f.choice({"scale", "restore_norm: as before the second moment; paper: ||u|| = 0.2 sqrt(rows cols)",
              optional_key},
             matrix.scale, std::array{"restore_norm", "paper", "none"});
    f.choice(
        {"scale_factor", "rows_over_cols: sqrt(max(1, rows / cols)); longer_side: 0.2 sqrt(max(rows, cols))",
         optional_key},
        matrix.scale_factor, std::array{"none", "rows_over_cols", "longer_side"});
    f.object({"length", "what the step and a matrix' length do to each other", optional_key},
             [&](Fields& l) { visit_length(l, matrix.length); });
    f.maybe({"row_norms", "rows as lengths times directions, each with an update of its own", optional_key},
            matrix.row_norms, visit_row_norms);
}

// Whether it reads `preconditioner`.
bool has_preconditioner(const MatrixConfig& matrix) {
    using Kind = MatrixConfig::Direction::Kind;
    const Kind kind = matrix.direction.kind;
    return matrix.orthogonalize.method == MatrixConfig::Orthogonalize::Method::preconditioner ||
           (matrix_rule(matrix.rule).parts & matrix_part::preconditioner) != 0 || kind == Kind::soap ||
           kind == Kind::kl_soap || kind == Kind::powers || kind == Kind::shampoo;
}

}  // namespace

void visit_matrix(Fields& f, MatrixConfig& matrix) {
    visit_rule(f, matrix);
    const unsigned parts = f.describes() ? ~0U : matrix_rule(matrix.rule).parts;
    f.number({"lr", "learning rate before lr_mul and the schedule", optional_key}, matrix.lr, not_negative);
    f.number({"weight_decay", "coefficient of `decay`", optional_key}, matrix.weight_decay, not_negative);
    f.choice({"decay",
              "with c of decay_coefficient, decoupled: p *= 1 - c; cautious: u += c p where u p >= 0; "
              "cautious_last: p *= 1 - c after the step where u p > 0 before it",
              optional_key},
             matrix.decay, std::array{"none", "decoupled", "cautious", "cautious_last"});
    f.choice({"decay_coefficient", "c = weight_decay * lr, weight_decay * the schedule's scale, weight_decay",
              optional_key},
             matrix.decay_coefficient, std::array{"lr", "schedule", "constant"});
    if (parts & matrix_part::momentum)
        f.object({"momentum", "its form, and its schedule", optional_key},
                 [&](Fields& m) { visit_momentum(m, matrix.momentum); });
    if (parts & matrix_part::moments)
        f.number({"beta1", "decay of the first moment", optional_key}, matrix.beta1, below_one);
    if (parts & (matrix_part::moments | matrix_part::pipeline)) {
        f.number({"beta2", "decay of the second moment", optional_key}, matrix.beta2, below_one);
        f.number({"eps", "what keeps from division by 0", optional_key}, matrix.eps, above_zero);
    }
    if (parts & matrix_part::pipeline) visit_pipeline(f, matrix);
    if (f.describes() || has_preconditioner(matrix))
        f.object({"preconditioner", "of rules that multiply by a matrix made of gradients", optional_key},
                 [&](Fields& p) { visit_preconditioner(p, matrix.preconditioner); });
}

}  // namespace speedrun
