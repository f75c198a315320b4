#pragma once
// The matrix updates of track 3 of modded-nanogpt, each a choice of the pipeline's parts: "rNN_..." is result
// NN of records/track_3_optimization/README.md there, with the numbers of its file. Learning rates are those
// before the schedule. docs/optimizers.md has the formulas.
#include <array>

#include "config/matrix_rule.h"

namespace speedrun {

namespace track3 {

inline constexpr unsigned parts = matrix_part::momentum | matrix_part::pipeline;

// The Muon of train_gpt_simple.py: 12 iterations of 2 s - 1.5 s^3 + 0.5 s^5, which end at 1.
constexpr void muon(MatrixConfig& c, double lr, double weight_decay) {
    matrix_part::muon(c);
    c.lr = lr;
    c.weight_decay = weight_decay;
    c.decay = weight_decay == 0 ? MatrixConfig::Decay::none : MatrixConfig::Decay::decoupled;
    c.orthogonalize.iters = 12;
    c.orthogonalize.coefficients = {2, -1.5, 0.5};
}

// A direction that is taken as it is.
constexpr void directly(MatrixConfig& c, MatrixConfig::Direction::Kind kind, double lr) {
    matrix_part::muon(c);
    c.lr = lr;
    c.direction.kind = kind;
    c.orthogonalize.method = MatrixConfig::Orthogonalize::Method::none;
    c.orthogonalize.dtype = Dtype::fp32;
    c.scale_factor = MatrixConfig::ScaleFactor::none;
}

// Adam and its relatives average gradients by themselves.
constexpr void adam(MatrixConfig& c, MatrixConfig::Direction::Kind kind, double lr, double beta1,
                    double beta2) {
    directly(c, kind, lr);
    c.momentum.form = MatrixConfig::Momentum::Form::none;
    c.momentum.nesterov = false;
    c.direction.beta1 = beta1;
    c.direction.beta2 = beta2;
}

constexpr void hyperball(MatrixConfig& c) {
    c.length.kind = MatrixConfig::Length::Kind::hyperball;
}

// A second moment of each line of the longer side, and the norm restored.
constexpr void normuon(MatrixConfig& c, double lr, double weight_decay) {
    muon(c, lr, weight_decay);
    c.second_moment = MatrixConfig::SecondMoment::longer_side;
    c.scale = MatrixConfig::Scale::restore_norm;
}

constexpr void contra_muon(MatrixConfig& c) {
    normuon(c, 0.0375, 0);
    c.length.floor = 0.35;
    c.contra = 0.2;
}

constexpr void soap(MatrixConfig& c, int64_t every_n_steps) {
    c.direction.kind = MatrixConfig::Direction::Kind::soap;
    c.direction.beta2 = 0.9;
    c.direction.norm = MatrixConfig::Direction::Norm::frobenius;
    c.preconditioner = {.every_n_steps = every_n_steps, .beta = 0.9, .max_size = 8192};
}

constexpr void trust_gate(MatrixConfig& c, double denominator_floor) {
    c.direction.eps = 1e-16;
    c.direction.eps_form = MatrixConfig::EpsForm::clamp;
    c.direction.gate = {.agreement = 0.2,
                        .denominator_floor = denominator_floor,
                        .floor = 0.45,
                        .cap = 0.85,
                        .floor_until = 1375,
                        .floor_end = 1625,
                        .cap_until = 1625};
}

constexpr void pinned_soap_muon(MatrixConfig& c) {
    muon(c, 0.0375, 0);
    c.momentum.min = 0.85;
    c.momentum.warmup_steps = 300;
    c.momentum.cooldown_steps = 200;
    soap(c, 1);
    trust_gate(c, 0);
    c.direction.norm = MatrixConfig::Direction::Norm::schatten4;
    c.orthogonalize.norm = MatrixConfig::Orthogonalize::Norm::schatten4;
    c.length = {.kind = MatrixConfig::Length::Kind::pinned, .outward = 0.5, .floor = 0.3825};
}

}  // namespace track3

inline constexpr auto track3_rules = std::to_array<MatrixRule>({
    {"r02_adamw", "result 2: AdamW, arXiv 1711.05101", track3::parts,
     [](MatrixConfig& c) {
         track3::adam(c, MatrixConfig::Direction::Kind::adam, 0.0015, 0.9, 0.95);
         c.direction.eps = 1e-10;
         c.weight_decay = 0.1;
         c.decay = MatrixConfig::Decay::decoupled;
     }},
    {"r04_adamh", "result 4: Adam on the hyperball", track3::parts,
     [](MatrixConfig& c) {
         track3::adam(c, MatrixConfig::Direction::Kind::adam, 0.018, 0.9, 0.95);
         track3::hyperball(c);
     }},
    {"r05_muonh", "result 5: Muon on the hyperball", track3::parts,
     [](MatrixConfig& c) {
         track3::muon(c, 0.018, 0);
         track3::hyperball(c);
     }},
    {"r06_muon", "result 6: Muon, https://kellerjordan.github.io/posts/muon", track3::parts,
     [](MatrixConfig& c) { track3::muon(c, 0.025, 0.025); }},
    {"r07_muon2", "result 7: Muon^2, a second moment of the gradient's entries before Newton-Schulz",
     track3::parts,
     [](MatrixConfig& c) {
         track3::muon(c, 0.1, 0.0125);
         c.direction.kind = MatrixConfig::Direction::Kind::entries;
         c.direction.beta2 = 0.95;
         c.direction.eps = 1e-10;
     }},
    {"r08_normuonh", "result 8: NorMuon, arXiv 2510.05491, on the hyperball", track3::parts,
     [](MatrixConfig& c) {
         track3::normuon(c, 0.018, 0);
         c.scale = MatrixConfig::Scale::none;
         track3::hyperball(c);
     }},
    {"r09_normuon_floor", "result 9: NorMuon whose updates are at least 0.35 as long as the weights",
     track3::parts,
     [](MatrixConfig& c) {
         track3::normuon(c, 0.0375, 0);
         c.length.floor = 0.35;
     }},
    {"r10_normuon", "result 10: NorMuon, arXiv 2510.05491, with the norm restored", track3::parts,
     [](MatrixConfig& c) { track3::normuon(c, 0.035, 0.025); }},
    {"r11_contra_muon", "result 11: https://github.com/nilin/contra-muon, beside result 9", track3::parts,
     track3::contra_muon},
    {"r14_contra_soap_muon", "result 14: result 11 along SOAP's direction (there of MLPs alone)",
     track3::parts,
     [](MatrixConfig& c) {
         track3::contra_muon(c);
         track3::soap(c, 10);
     }},
    {"r16_trust_soap_muon", "result 16: result 14 with a trust gate (there of attn.proj alone)",
     track3::parts,
     [](MatrixConfig& c) {
         track3::contra_muon(c);
         track3::soap(c, 10);
         track3::trust_gate(c, 0.2);
     }},
    {"r18_pmuon", "result 18: PMuon, Newton-Schulz after powers -0.3 of the update's covariances",
     track3::parts,
     [](MatrixConfig& c) {
         track3::muon(c, 0.035, 0.025);
         c.direction.kind = MatrixConfig::Direction::Kind::powers;
         c.direction.exponent = 0.3;
         c.direction.eps = 1e-6;
         c.preconditioner = {.beta = 0.95, .max_size = 8192};
     }},
    {"r19_kl_soaph", "result 19: KL-SOAP, arXiv 2509.03378, on the hyperball", track3::parts,
     [](MatrixConfig& c) {
         track3::adam(c, MatrixConfig::Direction::Kind::kl_soap, 0.018, 0.95, 0.9);
         c.preconditioner = {.beta = 0.9, .max_size = 8192};
         track3::hyperball(c);
     }},
    {"r21_shampoo", "result 21: Shampoo as long as Adam's step, arXiv 2309.06497", track3::parts,
     [](MatrixConfig& c) {
         track3::adam(c, MatrixConfig::Direction::Kind::shampoo, 0.0015, 0.9, 0.95);
         c.direction.eps = 1e-10;
         c.direction.start_step = 5;
         c.preconditioner = {.every_n_steps = 5, .beta = 0.95, .eps = 1e-12, .max_size = 8192};
         c.weight_decay = 0.2;
         c.decay = MatrixConfig::Decay::decoupled;
     }},
    {"r23_muown", "result 23: Muown, Muon of the rows' directions and Adam of their lengths", track3::parts,
     [](MatrixConfig& c) {
         matrix_part::muon(c);
         c.lr = 0.00325;
         c.momentum.form = MatrixConfig::Momentum::Form::accumulate;
         c.orthogonalize.method = MatrixConfig::Orthogonalize::Method::polar_express;
         c.orthogonalize.iters = 12;
         c.orthogonalize.coefficients = {8.2051, -22.9019, 16.4607, 4.0664, -2.8612, 0.5184,
                                         3.9096, -2.8234,  0.5250,  3.2856, -2.4153, 0.4853,
                                         2.2779, -1.6198,  0.3985,  1.8726, -1.2307, 0.3585,
                                         1.8564, -1.2132,  0.3568,  1.8750, -1.2500, 0.3750};
         c.scale_factor = MatrixConfig::ScaleFactor::longer_side;
         c.row_norms = RowNorms{.target = 2.496, .power = 1.2, .steps = 3165};
     }},
    {"r27_soaph", "result 27: SOAP, arXiv 2409.11321, on the hyperball", track3::parts,
     [](MatrixConfig& c) {
         track3::directly(c, MatrixConfig::Direction::Kind::soap, 0.018);
         track3::soap(c, 1);
         c.momentum.nesterov = false;
         c.direction.moments_of = MatrixConfig::Direction::MomentsOf::gradient;
         c.direction.first = MatrixConfig::Direction::First::basis;
         c.direction.sort = false;
         c.direction.norm = MatrixConfig::Direction::Norm::free;
         track3::hyperball(c);
     }},
    {"r28_dynmuon", "result 28: DynMuon, powers of the singular values that fall from 0.25 to -0.25",
     track3::parts,
     [](MatrixConfig& c) {
         track3::muon(c, 0.02, 0.025);
         c.momentum.form = MatrixConfig::Momentum::Form::accumulate;
         c.orthogonalize.power =
             SpectralPower{.start = 0.25, .end = -0.25, .middle = 0.04, .width = 0.04, .steps = 3200};
     }},
    {"r36_muon", "results 36 and train_gpt_simple.py: result 6 with other numbers", track3::parts,
     [](MatrixConfig& c) { track3::muon(c, 0.025, 0.05); }},
    {"r39_muon", "results 12 and 39: result 6 with other numbers", track3::parts,
     [](MatrixConfig& c) { track3::muon(c, 0.035, 0.025); }},
    {"r44_pinned_soap_muon", "results 44 and 45: Muon along SOAP's direction, with a pinned radius",
     track3::parts, track3::pinned_soap_muon},
    {"r46_pinned_soap_muon", "result 46: result 44 with a floor of each row, and cautious decay at the end",
     track3::parts,
     [](MatrixConfig& c) {
         track3::pinned_soap_muon(c);
         c.length.floor_of = MatrixConfig::Length::FloorOf::rows;
         c.weight_decay = 0.025;
         c.decay = MatrixConfig::Decay::cautious_last;
     }},
});

}  // namespace speedrun
