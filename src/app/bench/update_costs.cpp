#include "app/bench/update_costs.h"

#include <ATen/ATen.h>

#include <chrono>

#include "model/initialize.h"
#include "optim/optimizer.h"

namespace speedrun {
namespace {

int64_t state_bytes(const Config& config, const ParameterTable& table) {
    int64_t bytes = 0;
    for (const OptimParamConfig& row : config.optimizer.params) {
        if (row.rule != OptimParamConfig::Rule::matrix) continue;
        const Parameter& parameter = table[row.param];
        bytes += make_meta_rule(config.optimizer, row, parameter.config, parameter.value.scalar_type())
                     ->state_bytes();
    }
    return bytes;
}

// To the middle of a run, where nothing that is kept for some steps is made in each.
void skip_to(const Optimizer& optimizer, int64_t step) {
    for (const NamedTensor& part : optimizer.state())
        if (part.name.ends_with(".step")) part.tensor.fill_(step);
}

}  // namespace

UpdateCosts time_updates(const Config& config, int64_t steps) {
    using Clock = std::chrono::steady_clock;
    ParameterTable table(config, compile(config), at::kCPU);
    initialize(table, config.model, 1);
    table.refresh();
    const auto communicator = make_self_communicator();
    Optimizer optimizer(config, table, *communicator);
    std::vector<at::Tensor> gradients;
    for (const Parameter& parameter : table.all()) gradients.push_back(at::randn_like(parameter.grad));
    StepSettings settings = settings_at(config, 0);
    settings.adam_steps = false;
    UpdateCosts costs{.ms = {}, .state_bytes = state_bytes(config, table)};
    for (int64_t step = 0; step <= steps; ++step) {
        for (size_t i = 0; i < gradients.size(); ++i) table.all()[i].grad.copy_(gradients[i]);
        const auto start = Clock::now();
        optimizer.step(settings);
        const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
        if (step == 0) skip_to(optimizer, 100 * config.optimizer.matrix.preconditioner.every_n_steps);
        if (step > 0) costs.ms.push_back(ms);
    }
    return costs;
}

}  // namespace speedrun
