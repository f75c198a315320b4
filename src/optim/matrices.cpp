#include "optim/matrices.h"

namespace speedrun {

ops::MatrixStep plain_step(const MatrixConfig& config, const OptimParamConfig& row, double lr_scale) {
    using Kind = MatrixConfig::DecayCoefficient;
    const double lr = config.lr * lr_scale;
    const double coefficient = config.decay_coefficient == Kind::lr         ? lr
                               : config.decay_coefficient == Kind::schedule ? lr_scale
                                                                            : 1;
    return {.lr = lr * row.lr_mul,
            .decay = coefficient * config.weight_decay * row.wd_mul,
            .decay_kind = config.decay == MatrixConfig::Decay::cautious_last ? MatrixConfig::Decay::none
                                                                             : config.decay};
}

Matrices::Matrices(const Parameter& part, const OptimParamConfig& row)
    : value(part.value.view(row.matrix_view)), grad(part.grad.view(row.matrix_view)) {
    if (!part.used.is_same(part.value)) copy = part.used.view(row.matrix_view);
}

}  // namespace speedrun
