#pragma once
// Every rule that a config can choose for its matrices: its name, where it is published, what it looks at,
// and the numbers it has there. A row whose parts include `pipeline` needs nothing else; any other needs one
// file in src/optim (see optim/rule.h).
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "config/track3_rules.h"

namespace speedrun {

inline constexpr auto published_rules = std::to_array<MatrixRule>({
    {"normuon", "modded-nanogpt record 43, class NorMuon; arXiv 2510.05491 with the norm restored",
     matrix_part::momentum | matrix_part::pipeline,
     [](MatrixConfig& c) {
         c.lr = 0.03;
         c.momentum.min = c.momentum.max = 0.95;
         c.beta2 = 0.95;
     }},
    {"normuon_paper", "arXiv 2510.05491, Algorithm 1", matrix_part::momentum | matrix_part::pipeline,
     [](MatrixConfig& c) {
         matrix_part::muon(c);
         c.momentum.nesterov = false;
         c.second_moment = MatrixConfig::SecondMoment::rows;
         c.eps = 1e-8;
         c.eps_form = MatrixConfig::EpsForm::add;
         c.scale = MatrixConfig::Scale::paper;
         c.scale_factor = MatrixConfig::ScaleFactor::none;
         c.decay = MatrixConfig::Decay::decoupled;
     }},
    {"muon", "https://kellerjordan.github.io/posts/muon", matrix_part::momentum | matrix_part::pipeline,
     matrix_part::muon},
    {"adamuon", "MuonVariants: Muon with NovoGrad's second moment, one number a matrix",
     matrix_part::momentum | matrix_part::pipeline,
     [](MatrixConfig& c) {
         matrix_part::muon_variant(c);
         c.second_moment = MatrixConfig::SecondMoment::matrix;
         c.beta2 = 0.995;
         c.eps = 1e-8;
         c.eps_form = MatrixConfig::EpsForm::add;
         c.scale_factor = MatrixConfig::ScaleFactor::none;
     }},
    {"mommuon", "MuonVariants: the preconditioner (G G^T)^(-1/2) as a running average",
     matrix_part::momentum | matrix_part::pipeline,
     [](MatrixConfig& c) {
         matrix_part::muon_variant(c);
         c.lr = 1e-6;  // the update is as long as the gradient, which is that of a sum of losses
         c.orthogonalize.method = MatrixConfig::Orthogonalize::Method::preconditioner;
         c.orthogonalize.iters = 15;
         c.orthogonalize.dtype = Dtype::fp32;
         c.preconditioner.beta = 0.9;
     }},
    {"ogsignmuon", "MuonVariants: Muon's update with the signs of the gradient",
     matrix_part::momentum | matrix_part::pipeline,
     [](MatrixConfig& c) {
         matrix_part::muon_variant(c);
         c.signs = MatrixConfig::Signs::gradient;
     }},
    {"adamw", "arXiv 1711.05101, Algorithm 2, as torch.optim.AdamW has it", matrix_part::moments,
     [](MatrixConfig& c) {
         c.lr = 3e-4;
         c.beta1 = c.beta2 = 0.95;
         c.eps = 1e-8;
     }},
    {"shampoo", "arXiv 1802.09568, Algorithm 1", matrix_part::momentum | matrix_part::preconditioner,
     [](MatrixConfig& c) {
         c.lr = 0.02;
         c.momentum.nesterov = false;
         c.preconditioner = {.every_n_steps = 1, .beta = 1, .eps = 1e-4, .max_size = 2048};
     }},
    {"soap", "arXiv 2409.11321, Algorithm 3", matrix_part::moments | matrix_part::preconditioner,
     [](MatrixConfig& c) {
         c.lr = 3e-3;
         c.beta1 = c.beta2 = 0.95;
         c.eps = 1e-8;
         c.preconditioner = {.every_n_steps = 10, .beta = 0.95, .max_size = 2048};
     }},
    {"sgd", "stochastic gradients with momentum, as torch.optim.SGD has it", matrix_part::momentum,
     [](MatrixConfig& c) {
         c.lr = 1e-4;
         c.momentum.form = MatrixConfig::Momentum::Form::accumulate;
         c.momentum.nesterov = false;
         c.momentum.min = c.momentum.max = 0.9;
     }},
});

template <size_t a, size_t b>
constexpr std::array<MatrixRule, a + b> joined_rules(const std::array<MatrixRule, a>& first,
                                                     const std::array<MatrixRule, b>& second) {
    std::array<MatrixRule, a + b> all{};
    std::copy(second.begin(), second.end(), std::copy(first.begin(), first.end(), all.begin()));
    return all;
}

inline constexpr auto matrix_rules = joined_rules(published_rules, track3_rules);

// Its place in the table; its size where there is no such rule.
constexpr size_t matrix_rule_index(std::string_view name) {
    size_t index = 0;
    while (index < matrix_rules.size() && matrix_rules[index].name != name) ++index;
    return index;
}

// InternalError where there is no such rule.
const MatrixRule& matrix_rule(const std::string& name);
MatrixConfig matrix_defaults(const std::string& name);

}  // namespace speedrun
