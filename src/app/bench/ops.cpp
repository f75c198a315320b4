#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/bench/ops/rows.h"
#include "app/bench/timing.h"
#include "app/bench/verbs.h"
#include "app/session.h"
#include "ops/gemm.h"
#include "plan/throughput.h"

namespace speedrun {
namespace {

std::vector<Op> all_ops(const PassShapes& pass) {
    std::vector<Op> ops = element_ops(pass);
    for (auto part : {product_ops(pass), optimizer_ops(pass.config, pass.settings, pass.device)})
        std::ranges::move(part, std::back_inserter(ops));
    return ops;
}

std::string names_of(const std::vector<Op>& ops) {
    std::string names;
    for (const Op& op : ops) names += (names.empty() ? "" : ", ") + op.name;
    return names;
}

struct Bench {
    Config config;
    StepSettings settings;
    Batch batch;
    at::Device device;
    int64_t threads;
};

void print(const Bench& bench, const std::vector<TimedOp>& timed, const MachineRates& rates, bool json) {
    const auto tokens = static_cast<int64_t>(bench.batch.inputs.size());
    const double micro_batches =
        static_cast<double>(bench.settings.batch_tokens) / static_cast<double>(tokens);
    if (json) {
        nlohmann::ordered_json all{{"device", bench.device.str()},
                                   {"threads", bench.threads},
                                   {"tokens", tokens},
                                   {"micro_batches", micro_batches},
                                   {"gemm_flops", rates.flops},
                                   {"copy_bytes_per_s", rates.bandwidth}};
        all.update(ops_json(timed, rates));
        std::puts(all.dump(2).c_str());
        return;
    }
    std::printf(
        "%s, %lld threads: GEMMs reach %.1f GFLOP/s (%s), copies %.1f GB/s; floors are by these two,\n"
        "and what lies in caches can be faster than memory\n"
        "a step: %g micro-batches of %lld tokens on one rank; rows in brackets are part of another\n\n%s",
        bench.device.str().c_str(), static_cast<long long>(bench.threads), rates.flops / 1e9,
        bench.device.is_cpu() ? ops::gemm_backend(activation_type(bench.config)).c_str() : "ATen",
        rates.bandwidth / 1e9, micro_batches, static_cast<long long>(tokens), ops_text(timed, rates).c_str());
}

Bench make_bench(const cxxopts::ParseResult& options) {
    auto overrides = value_or_empty<std::vector<std::string>>(options, "set");
    if (options.count("device") > 0)
        overrides.push_back("runtime.device=" + options["device"].as<std::string>());
    const auto document = options["document"].as<int64_t>();
    if (document < 1) throw UserError("bench ops: --document must be positive");
    Config config = load_config(options["config"].as<std::string>(), overrides);
    const StepSettings settings = settings_at(config, 0);
    Batch batch = synthetic_batch(config, config.data.micro_batch_tokens, document);
    const at::Device device = choose_device(config.runtime);
    const int64_t threads = set_threads(config.runtime);
    return {std::move(config), settings, std::move(batch), device, threads};
}

int time_ops(const cxxopts::ParseResult& options) {
    const Bench bench = make_bench(options);
    const std::string only = value_or_empty<std::string>(options, "only");
    const double budget_ms = options["ms"].as<double>();
    if (!(budget_ms > 0)) throw UserError("bench ops: --ms must be positive");
    std::vector<Op> ops = all_ops({bench.config, bench.settings, bench.batch, bench.device});
    const std::string names = names_of(ops);
    std::erase_if(ops, [&](const Op& op) { return !op.name.starts_with(only); });
    if (ops.empty())
        throw UserError("bench ops: no op's name begins with \"" + only + "\"; there are: " + names);
    const MachineRates rates{measure_gemm_peak(activation_type(bench.config), bench.device),
                             measure_copy_bandwidth(bench.device)};
    std::vector<TimedOp> timed;
    for (Op& op : ops) {
        const auto call = op.prepare();
        const double ms = time_call(call, bench.device, budget_ms);
        timed.push_back({std::move(op), ms, kernels_of(call, bench.device)});
    }
    print(bench, timed, rates, options.count("json") > 0);
    return 0;
}

}  // namespace

int bench_ops(int argc, char** argv) {
    cxxopts::Options specification(
        "speedrun bench ops",
        "Time every op of a training step at the shapes of a config's micro-batch, against the least time "
        "that its arithmetic and its memory traffic take here");
    auto add = specification.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>()->default_value("configs/quickstart.json"));
    add("set", "override a value, such as data.micro_batch_tokens=1024",
        cxxopts::value<std::vector<std::string>>());
    add("device", "cpu or cuda instead of the config's", cxxopts::value<std::string>());
    add("document", "tokens of a document", cxxopts::value<int64_t>()->default_value("400"));
    add("only", "ops whose names begin so, such as gemm or attention.forward", cxxopts::value<std::string>());
    add("ms", "milliseconds to spend on each, or six calls", cxxopts::value<double>()->default_value("250"));
    add("json", "one JSON object instead of a table");
    add("help", "this text");
    const auto options = parse_verb(specification, argc, argv, {});
    return options ? time_ops(*options) : 0;
}

}  // namespace speedrun
