#include <fmt/core.h>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/bench/timing.h"
#include "app/bench/update_costs.h"
#include "app/session.h"
#include "app/verbs.h"
#include "config/matrix_rules.h"
#include "model/load_config.h"
#include "util/diagnostics.h"
#include "util/error.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

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

// A rule's rounds, in each of which every rule had its turn.
struct Contender {
    std::string name;
    std::vector<UpdateCosts> rounds;

    // Of the rounds' mean steps: some rules do in one step of ten what takes longer than all the others.
    double median_ms() const {
        std::vector<double> means;
        for (const UpdateCosts& round : rounds) means.push_back(round.mean_ms());
        return median(std::move(means));
    }
    nlohmann::json json() const {
        nlohmann::json json{{"rule", name}, {"state_bytes", rounds.front().state_bytes}, {"ms", {}}};
        for (const UpdateCosts& round : rounds) json["ms"].push_back(round.ms);
        return json;
    }
};

void print(const std::vector<Contender>& all, bool json) {
    const auto muon = std::ranges::find(all, "muon", [](const auto& one) { return one.name.substr(0, 4); });
    TextTable table{{"rule", "ms a step", "of muon's", "state, MiB"}};
    for (const Contender& one : all) {
        if (json) std::puts(one.json().dump().c_str());
        table.push_back(
            {one.name, fmt::format("{:.1f}", one.median_ms()),
             fmt::format("{:.2f}", one.median_ms() / muon->median_ms()),
             fmt::format("{:.1f}", static_cast<double>(one.rounds.front().state_bytes) / (1 << 20))});
    }
    if (!json) std::fputs(plain_table(table).c_str(), stdout);
}

}  // namespace

int bench_optimizer_step(int argc, char** argv) {
    cxxopts::Options specification(
        "speedrun bench optimizer-step",
        "Time on a CPU the update of a config's matrices by its own rule and every other");
    auto add = specification.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>());
    add("set", "override a value of the config's own rule", cxxopts::value<std::vector<std::string>>());
    add("rules", "only those whose names begin so, and muon; if not given, all but track 3's",
        cxxopts::value<std::vector<std::string>>());
    add("steps", "timed steps of a round", cxxopts::value<std::string>()->default_value("10"));
    add("rounds", "all rules in turns", cxxopts::value<std::string>()->default_value("3"));
    add("json", "one JSON object a rule instead of a table");
    const auto parsed = parse_verb(specification, argc, argv, {"config"});
    if (!parsed) return 0;
    const auto& options = *parsed;
    const auto steps = whole<int64_t>(options, "steps"), rounds = whole<int64_t>(options, "rounds");
    if (steps < 1 || rounds < 1)
        throw UserError("bench optimizer-step: --steps and --rounds must be positive");
    auto wanted = value_or_empty<std::vector<std::string>>(options, "rules");
    auto configs = contenders(options["config"].as<std::string>(),
                              value_or_empty<std::vector<std::string>>(options, "set"));
    if (configs.front().second.runtime.device == RuntimeConfig::Device::cuda)
        throw UserError(
            "runtime.device: bench optimizer-step times updates on a CPU; on a GPU `speedrun bench ops` "
            "does");
    set_threads(configs.front().second.runtime);  // the config's own, with its overrides
    if (wanted.empty()) {
        std::erase_if(configs, [](const auto& one) {
            return std::ranges::find(track3_rules, one.first, &MatrixRule::name) != track3_rules.end();
        });
    } else {
        wanted.emplace_back("muon");
        std::erase_if(configs, [&](const auto& one) {
            return std::ranges::none_of(wanted,
                                        [&](const auto& name) { return one.first.starts_with(name); });
        });
    }
    std::vector<Contender> all;
    for (const auto& [name, config] : configs) all.push_back({name, {}});
    for (int64_t round = 0; round < rounds; ++round)
        for (size_t i = 0; i < configs.size(); ++i) {
            // Those that need eigenvectors take minutes on large matrices.
            inform("round {} of {}: {}", round + 1, rounds, configs[i].first);
            all[i].rounds.push_back(time_updates(configs[i].second, steps));
        }
    print(all, options.count("json") > 0);
    return 0;
}

}  // namespace speedrun
