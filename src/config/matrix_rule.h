#pragma once
// A row of the tables of rules: matrix_rules.h, track3_rules.h.
#include "config/config.h"

namespace speedrun {

// What a rule reads of MatrixConfig beside lr and decay.
namespace matrix_part {
inline constexpr unsigned momentum = 1;
inline constexpr unsigned pipeline = 2;  // orthogonalize, signs, second moment, scale
inline constexpr unsigned moments = 4;   // beta1, beta2, eps
inline constexpr unsigned preconditioner = 8;
}  // namespace matrix_part

struct MatrixRule {
    const char* name;
    const char* source;
    unsigned parts;
    void (*defaults)(MatrixConfig& config);  // changes MatrixConfig{} into the rule as published
};

namespace matrix_part {
// Muon of https://kellerjordan.github.io/posts/muon, from which the others differ.
constexpr void muon(MatrixConfig& c) {
    using Orthogonalize = MatrixConfig::Orthogonalize;
    c.lr = 0.02;
    c.momentum.min = c.momentum.max = 0.95;
    c.orthogonalize = {.method = Orthogonalize::Method::newton_schulz, .norm_safety = 1, .norm_eps = 1e-7};
    c.second_moment = MatrixConfig::SecondMoment::none;
    c.scale = MatrixConfig::Scale::none;
    c.scale_factor = MatrixConfig::ScaleFactor::rows_over_cols;
    c.beta2 = 0.95;
}

// The Muon of MuonVariants: accumulating momentum, six iterations.
constexpr void muon_variant(MatrixConfig& c) {
    muon(c);
    c.momentum.form = MatrixConfig::Momentum::Form::accumulate;
    c.orthogonalize.iters = 6;
}
}  // namespace matrix_part

}  // namespace speedrun
