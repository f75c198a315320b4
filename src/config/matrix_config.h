#pragma once
// The rule of matrices and its parts: optimizer.matrix of a config.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/model_config.h"

namespace speedrun {

// Singular values become their p-th powers, nearly, not 1: p = end + (start - end) / (1 + exp((step / steps -
// middle) / width)).
struct SpectralPower {
    double start = 0, end = 0, middle = 0, width = 1;
    int64_t steps = 1;
};

// Rows as lengths times directions, p = g v / |v|, each with an update of its own.
struct RowNorms {
    double target = 1;  // what |v| counts as at the end, at first g
    double power = 1;   // of the share of `steps` gone
    int64_t steps = 1;
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;  // of Adam, for g
};

// `rule` is a name in matrix_rules.h, whose row there chooses what follows; a config may give any part beside
// it. What a rule does not have, it does not look at. docs/optimizers.md has the formulas.
struct MatrixConfig {
    std::string rule;
    double lr = 0, weight_decay = 0;
    // With c = weight_decay * wd_mul * what decay_coefficient says:
    // decoupled: p *= 1 - c; cautious (arXiv 2510.12402): u += c p where u p >= 0; then p -= lr * lr_mul * u.
    // cautious_last: after that step, and after `length`, p *= 1 - c where u p > 0 with p from before it.
    enum class Decay { none, decoupled, cautious, cautious_last } decay = Decay::none;
    enum class DecayCoefficient {
        lr,        // the learning rate of the step, without lr_mul
        schedule,  // the schedule's scale alone: 1 before it falls
        constant   // 1
    } decay_coefficient = DecayCoefficient::lr;
    struct Momentum {
        enum class Form {
            lerp,        // m <- mu m + (1 - mu) g
            accumulate,  // m <- mu m + g
            none         // u = g: `direction` has a first moment of its own
        } form = Form::lerp;
        enum class Type {
            gradient,  // m has the gradient's dtype
            fp32
        } dtype = Type::gradient;
        bool nesterov = true;  // u = the same form once more with g and the new m; otherwise u = m
        double min = 0, max = 0;
        int64_t warmup_steps = 0, cooldown_steps = 0;
    } momentum;
    enum class EpsForm { clamp, add };  // x / sqrt(max(v, eps)), x / (sqrt(v) + eps)
    // What is made of the momentum before it is orthogonalised: optim/parts.
    struct Direction {
        enum class Kind {
            momentum,  // nothing
            adam,      // Adam's step, from moments of the gradient
            entries,   // divided by the root of a second moment of the gradient's entries
            soap,      // divided in the eigenbases of Shampoo's matrices
            kl_soap,   // Adam's step in bases that are found by the KL divergence
            powers,    // multiplied by negative powers of its own covariances
            shampoo    // multiplied by roots of Shampoo's matrices, as long as Adam's step
        } kind = Kind::momentum;
        double beta1 = 0, beta2 = 0, eps = 1e-8;
        EpsForm eps_form = EpsForm::add;
        // soap:
        enum class MomentsOf { momentum, gradient } moments_of = MomentsOf::momentum;
        // What the first step does, before which there is no basis: goes along the momentum, or makes the
        // bases first.
        enum class First { momentum, basis } first = First::momentum;
        bool sort = true;  // directions by falling eigenvalue, at every renewal
        enum class Norm { free, frobenius, schatten4 } norm = Norm::free;  // which of the momentum is kept
        struct Gate {                      // of matrices whose row says "gated"
            double agreement = 0.2;        // cosine of direction and momentum below which it is shut
            double denominator_floor = 0;  // times their rms: the least denominators
            // It opens at least by `floor` before floor_until, falling to 0 at floor_end; at most by `cap`
            // before cap_until.
            double floor = 0, cap = 1;
            int64_t floor_until = 0, floor_end = 0, cap_until = 0;  // steps
        } gate;
        double exponent = 0;     // powers: of the covariances, negated
        int64_t start_step = 1;  // shampoo: Adam's direction in the steps before, counted from 1
    } direction;
    struct Orthogonalize {
        enum class Method {
            polar_express,
            newton_schulz,
            preconditioner,
            none
        } method = Method::polar_express;
        int64_t iters = 5;
        Dtype dtype = Dtype::bf16;
        // X is divided by ||X||_F norm_safety + norm_eps, or by max(||X||_4 norm_safety, norm_eps), where
        // ||X||_4 is Schatten's: the fourth root of the sum of the singular values' fourth powers.
        enum class Norm { frobenius, schatten4 } norm = Norm::frobenius;
        double norm_safety = 1.02, norm_eps = 1e-6;
        // a, b, c of each iteration, the last three for all after them; empty: those of the method
        std::vector<double> coefficients = {};
        std::optional<SpectralPower> power = {};
    } orthogonalize;
    double contra = 0;  // X -= contra * u / ||u||_2, as long as before
    enum class Signs { keep, gradient, momentum } signs = Signs::keep;
    enum class SecondMoment {
        none,
        rows,         // one number for each row of matrix_view
        columns,      // for each column
        longer_side,  // for each row of tall and square matrices, each column of wide ones
        matrix        // one of each matrix's ||u||_F before it is orthogonalised
    } second_moment = SecondMoment::columns;
    double beta1 = 0, beta2 = 0, eps = 1e-10;
    EpsForm eps_form = EpsForm::clamp;
    bool bias_correction = false;  // v / (1 - beta2^t)
    enum class Scale {
        restore_norm,  // u has the norm that it had before the second moment
        paper,         // ||u||_F = 0.2 sqrt(rows cols)
        none
    } scale = Scale::restore_norm;
    enum class ScaleFactor {
        none,
        rows_over_cols,  // sqrt(max(1, rows / cols))
        longer_side      // 0.2 sqrt(max(rows, cols))
    } scale_factor = ScaleFactor::none;
    // Of rules that multiply by a matrix made of gradients: see running_root.h, shampoo.cpp, soap.cpp, parts.
    struct Preconditioner {
        int64_t every_n_steps = 1;  // it is made anew in the 1st, (n+1)-th, ... step
        double beta = 0.9;          // of its running average; 1 (Shampoo): a sum
        double eps = 0;
        bool normalize_input = false;  // running root: multiplies u / ||u||, not u
        int64_t max_size = 0;          // sides longer than this are left as they are
    } preconditioner;
    // What the step does to the length of a matrix, and its length to the step.
    struct Length {
        enum class Kind {
            free,
            hyperball,  // ||p|| stays what it is, and u counts as long as p
            pinned      // ||p|| becomes what the step along p alone makes of it
        } kind = Kind::free;
        double outward = 1, inward = 1;  // times what the step takes p outward or inward by
        double floor = 0;                // u is at least so long, relative to p
        enum class FloorOf { matrix, rows } floor_of = FloorOf::matrix;
    } length;
    std::optional<RowNorms> row_norms;
};

}  // namespace speedrun
