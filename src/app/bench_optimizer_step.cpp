#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/bench_verbs.h"
#include "app/session.h"
#include "config/comm.h"
#include "config/matrix_rules.h"
#include "model/initialize.h"
#include "optim/optimizer.h"
#include "record/text_table.h"

namespace speedrun {
namespace {

struct Figures {
    std::vector<double> ms;  // of steps
    int64_t state_bytes = 0;
};

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

// Updates of matrices alone, of random weights by random gradients. The first is not counted.
Figures time_steps(const Config& config, int64_t steps) {
    using Clock = std::chrono::steady_clock;
    ParameterTable table(config.model, config.numerics, at::kCPU, contiguous_runs(config));
    initialize(table, config.model, 1);
    table.refresh();
    const auto communicator = make_self_communicator();
    Optimizer optimizer(config, table, *communicator);
    std::vector<at::Tensor> gradients;
    for (const Parameter& parameter : table.all()) gradients.push_back(at::randn_like(parameter.grad));
    StepSettings settings = settings_at(config, 0);
    settings.adam_steps = false;
    Figures figures{.ms = {}, .state_bytes = 0};
    for (const OptimParamConfig& row : config.optimizer.params)
        if (row.rule == OptimParamConfig::Rule::matrix) {
            const Parameter& parameter = table[row.param];
            figures.state_bytes +=
                make_meta_rule(config.optimizer, row, parameter.config, parameter.value.scalar_type())
                    ->state_bytes();
        }
    for (int64_t step = 0; step <= steps; ++step) {
        for (size_t i = 0; i < gradients.size(); ++i) table.all()[i].grad.copy_(gradients[i]);
        const auto start = Clock::now();
        optimizer.step(settings);
        const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
        if (step > 0) figures.ms.push_back(ms);
    }
    return figures;
}

// The config as it is, then every other rule as published.
std::vector<std::pair<std::string, Config>> contenders(const std::string& file,
                                                       const std::vector<std::string>& overrides) {
    const Config own = load_config(file, overrides);
    std::vector<std::pair<std::string, Config>> found{{own.optimizer.matrix.rule + " (the config's)", own}};
    for (const MatrixRule& rule : matrix_rules) {
        if (rule.name == own.optimizer.matrix.rule) continue;
        found.emplace_back(rule.name,
                           load_config(file, std::vector{"optimizer.matrix.rule=" + std::string(rule.name)}));
    }
    return found;
}

void print(const std::vector<std::pair<std::string, Figures>>& all, bool json) {
    const auto muon = std::ranges::find(all, "muon", [](const auto& one) { return one.first.substr(0, 4); });
    const double unit = median(muon->second.ms);
    TextTable table{{"rule", "ms a step", "of muon's", "state, MiB"}};
    for (const auto& [name, figures] : all) {
        if (json)
            std::puts(nlohmann::json{{"rule", name}, {"ms", figures.ms}, {"state_bytes", figures.state_bytes}}
                          .dump()
                          .c_str());
        table.push_back({name, format_text("%.1f", median(figures.ms)),
                         format_text("%.2f", median(figures.ms) / unit),
                         format_text("%.1f", static_cast<double>(figures.state_bytes) / (1 << 20))});
    }
    if (!json) std::fputs(plain_table(table).c_str(), stdout);
}

}  // namespace

int bench_optimizer_step(int argc, char** argv) {
    cxxopts::Options specification("speedrun bench optimizer-step",
                                   "Time the update of a config's matrices by its own rule and every other");
    auto add = specification.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>());
    add("set", "override a value of the config's own rule", cxxopts::value<std::vector<std::string>>());
    add("rules", "only those whose names begin so, and muon", cxxopts::value<std::vector<std::string>>());
    add("steps", "timed steps of a round", cxxopts::value<int64_t>()->default_value("10"));
    add("rounds", "all rules in turns", cxxopts::value<int64_t>()->default_value("3"));
    add("json", "one JSON object a rule instead of a table");
    add("help", "this text");
    const auto options = parse_arguments(specification, argc, argv);
    if (options.count("help") > 0) {
        std::puts(specification.help().c_str());
        return 0;
    }
    const auto steps = options["steps"].as<int64_t>(), rounds = options["rounds"].as<int64_t>();
    if (options.count("config") == 0 || steps < 1 || rounds < 1)
        throw UserError("bench optimizer-step: wants --config FILE, and positive counts\n" +
                        specification.help());
    auto wanted = value_or_empty<std::vector<std::string>>(options, "rules");
    auto configs = contenders(options["config"].as<std::string>(),
                              value_or_empty<std::vector<std::string>>(options, "set"));
    set_threads(configs.front().second.runtime);  // the config's own, with its overrides
    if (!wanted.empty()) {
        wanted.emplace_back("muon");
        std::erase_if(configs, [&](const auto& one) {
            return std::ranges::none_of(wanted,
                                        [&](const auto& name) { return one.first.starts_with(name); });
        });
    }
    std::vector<std::pair<std::string, Figures>> all;
    for (const auto& [name, config] : configs) all.emplace_back(name, Figures{});
    for (int64_t round = 0; round < rounds; ++round)
        for (size_t i = 0; i < configs.size(); ++i) {
            // Those that need eigenvectors take minutes on large matrices.
            std::fprintf(stderr, "round %lld of %lld: %s\n", static_cast<long long>(round + 1),
                         static_cast<long long>(rounds), configs[i].first.c_str());
            const Figures figures = time_steps(configs[i].second, steps);
            all[i].second.state_bytes = figures.state_bytes;
            all[i].second.ms.insert(all[i].second.ms.end(), figures.ms.begin(), figures.ms.end());
        }
    print(all, options.count("json") > 0);
    return 0;
}

}  // namespace speedrun
