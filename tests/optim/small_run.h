#pragma once
// Record 43's parameters at width 32 under an optimizer, without a model: gradients are random.
#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>

#include "../model/record_params.h"
#include "config/matrix_rules.h"
#include "model/initialize.h"
#include "optim/optimizer.h"

namespace speedrun {

inline Config small_run(const std::string& rule = "normuon") {
    Config config;
    config.model = testing::record_params(32, 128, 2);
    config.objective.grad_divisor = 1;
    config.optimizer.adam = {.lr = 0.008,
                             .beta1 = 0.65,
                             .beta2 = 0.95,
                             .eps = 1e-8,
                             .state_dtype = Dtype::bf16,
                             .every_n_steps = 2};
    config.optimizer.matrix = matrix_defaults(rule);
    if (rule == "normuon") {
        config.optimizer.matrix.weight_decay = 1.2;
        config.optimizer.matrix.decay = MatrixConfig::Decay::cautious;
    }
    using Rule = OptimParamConfig::Rule;
    config.optimizer.params = {{"embed", Rule::adam, 75},
                               {"value_embeds", Rule::adam, 75},
                               {"lm_head", Rule::adam, 1},
                               {"attn_qkvo", Rule::matrix, 1, 1, {40, 32, 32}, -2},
                               {"mlp_fc", Rule::matrix, 2, 1, {11, 32, 128}, -2},
                               {"mlp_proj", Rule::matrix, 1, 1, {11, 32, 128}, -2},
                               {"attn_gate", Rule::matrix, 1, 1, {10, 2, 12}, -2},
                               {"smear_gate", Rule::matrix, 1, 1, {1, 1, 12}, -2},
                               {"scalars", Rule::adam, 5}};
    return config;
}

struct SmallRun {
    explicit SmallRun(const Config& run = small_run(),
                      std::unique_ptr<Communicator> ranks = make_self_communicator())
        : communicator(std::move(ranks)),
          config(run),
          table(config.model, config.numerics, at::kCPU),
          optimizer(config, table, *communicator) {
        initialize(table, config.model, 1);
    }
    void add_gradients(uint64_t seed) {
        at::manual_seed(seed);
        for (Parameter& p : table.all()) p.grad.add_(at::randn(p.grad.sizes()).to(p.grad.scalar_type()));
    }
    void step(int64_t i) {
        add_gradients(static_cast<uint64_t>(i));
        StepSettings settings;
        settings.step = i;
        settings.muon_momentum = 0.9;
        settings.adam_steps = i % 2 == 1;
        optimizer.step(settings);
    }

    std::unique_ptr<Communicator> communicator;
    Config config;
    ParameterTable table;
    Optimizer optimizer;
};

inline bool gradients_are_finite(Optimizer& optimizer) {
    return std::isfinite(optimizer.gradient_sum().item<double>());
}

}  // namespace speedrun
