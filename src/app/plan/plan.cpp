#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <ranges>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/plan/run_plan.h"
#include "app/session.h"
#include "app/verbs.h"
#include "model/load_config.h"
#include "util/text.h"

namespace speedrun {
namespace {

std::string machine_names() {
    return joined(machines() | std::views::transform(&Machine::name));
}

cxxopts::Options plan_options() {
    cxxopts::Options options(
        "speedrun plan",
        "What a run will need and how fast it could be, worked out without a model or a "
        "GPU: who owns what, memory, bytes sent, the floor of a step, how far it scales.");
    auto add = options.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>());
    add("set", "override a value, such as data.rows=16", cxxopts::value<std::vector<std::string>>());
    add("ranks", "ranks of the job", cxxopts::value<std::string>()->default_value("1"));
    add("ranks-per-node", "ranks of a node; 0: as the machine usually has",
        cxxopts::value<std::string>()->default_value("0"));
    add("gpu", "what a rank runs on: " + machine_names(),
        cxxopts::value<std::string>()->default_value("h100"));
    add("schedule", "print the settings wherever they change instead");
    add("every", "with --schedule: print them every N steps",
        cxxopts::value<std::string>()->default_value("0"));
    add("json", "print one JSON object");
    add("price", "dollars an hour of a GPU: adds what a run and an attempt cost at least",
        cxxopts::value<std::string>());
    add("runs", "with --price: runs of the attempt", cxxopts::value<std::string>()->default_value("10"));
    add("bf16-tflops", "another rate than assumed", cxxopts::value<std::string>());
    add("fp8-tflops", "the same for FP8; 0: none", cxxopts::value<std::string>());
    add("memory-gbps", "10^9 bytes/s of a rank's memory", cxxopts::value<std::string>());
    add("link-gbps", "10^9 bytes/s between ranks of a node", cxxopts::value<std::string>());
    add("network-gbps", "10^9 bytes/s of a rank between nodes", cxxopts::value<std::string>());
    add("memory-gib", "GiB of a rank's memory", cxxopts::value<std::string>());
    return options;
}

Machine machine_of(const cxxopts::ParseResult& options) {
    Machine machine = find_machine(options["gpu"].as<std::string>());
    const auto replace = [&](const char* name, double& value, double unit, bool zero_allowed = false) {
        if (options.count(name) == 0) return;
        const double given = decimal(options, name);
        if (!(given > 0 || (zero_allowed && given == 0)))
            throw UserError(std::string("plan: --") + name + " must be positive, not " +
                            std::to_string(given));
        value = given * unit;
    };
    replace("bf16-tflops", machine.bf16_flops, 1e12);
    replace("fp8-tflops", machine.fp8_flops, 1e12, true);
    replace("memory-gbps", machine.memory_bandwidth, 1e9);
    replace("link-gbps", machine.link_bandwidth, 1e9);
    replace("network-gbps", machine.network_bandwidth, 1e9);
    constexpr double gib = 1 << 30, most_gib = 1 << 20;
    double memory = static_cast<double>(machine.memory_bytes);
    replace("memory-gib", memory, gib);
    if (memory > most_gib * gib)
        throw UserError("plan: --memory-gib is " + options["memory-gib"].as<std::string>() +
                        ", allowed: up to " + std::to_string(1 << 20));
    machine.memory_bytes = static_cast<int64_t>(memory);
    return machine;
}

double gpu_hour_of(const cxxopts::ParseResult& options) {
    constexpr double most = 1e6;
    const double price = decimal(options, "price");
    if (!(price > 0 && price <= most))
        throw UserError("plan: --price is " + options["price"].as<std::string>() +
                        ", allowed: dollars above 0, up to 1000000");
    return price;
}

int64_t at_least(const cxxopts::ParseResult& options, const char* name, int64_t least, int64_t most) {
    const auto value = whole<int64_t>(options, name);
    if (value < least || value > most)
        throw UserError(std::string("plan: --") + name + " is " + std::to_string(value) +
                        ", allowed: " + std::to_string(least) + " to " + std::to_string(most));
    return value;
}

}  // namespace

int run_plan(int argc, char** argv) {
    auto specification = plan_options();
    const auto parsed = parse_verb(specification, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& options = *parsed;
    if (options.count("config") == 0) throw UserError("plan needs --config" + help_hint(specification));
    const auto file = options["config"].as<std::string>();
    Config config = load_config(file, value_or_empty<std::vector<std::string>>(options, "set"));
    const bool json = options.count("json") > 0;
    if (options.count("schedule") > 0) {
        const int64_t every = at_least(options, "every", 0, int64_t{1} << 40);
        std::cout << (json ? schedule_json(config, every).dump(2) + "\n" : schedule_text(config, every));
        return 0;
    }
    const Machine machine = machine_of(options);
    const int64_t ranks = at_least(options, "ranks", 1, 1 << 16);
    const int64_t given = at_least(options, "ranks-per-node", 0, 1 << 16);
    const int64_t ranks_per_node = given > 0 ? given : machine.ranks_per_node;
    LaunchEnvironment launch;  // what operators keep depends on the threads of a rank
    launch.local_size = std::min(ranks, ranks_per_node);
    set_threads(config.runtime, launch);
    RunPlan plan = make_plan(std::move(config), file, ranks, ranks_per_node, machine);
    if (options.count("price") > 0)
        plan.price = price_of(plan, gpu_hour_of(options), at_least(options, "runs", 1, 1000));
    std::cout << (json ? plan_json(plan).dump(2) + "\n" : plan_text(plan));
    return 0;
}

}  // namespace speedrun
