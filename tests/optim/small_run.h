#pragma once
// Record 43's parameters at width 32 under an optimizer, without a model: gradients are random.
#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>

#include "config/matrix_rules.h"
#include "model/initialize.h"
#include "optim/optimizer.h"
#include "support/small_record.h"

namespace speedrun {

inline Config small_run(const std::string& rule = "normuon") {
    Config config = small_record({}, {"optimizer.comm=null"});
    config.objective.grad_divisor = 1;
    if (rule != "normuon") config.optimizer.matrix = matrix_defaults(rule);
    return config;
}

struct SmallRun {
    explicit SmallRun(const Config& run = small_run(),
                      std::unique_ptr<Communicator> ranks = make_self_communicator())
        : communicator(std::move(ranks)),
          config(run),
          table(config, compile(config), at::kCPU),
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
