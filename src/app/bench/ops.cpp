#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <ranges>
#include <set>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/bench/ops/node_timer.h"
#include "app/bench/ops/rows.h"
#include "app/bench/timing.h"
#include "app/session.h"
#include "app/verbs.h"
#include "data/prefix_table.h"
#include "model/load_config.h"
#include "ops/gemm.h"
#include "plan/graph_work.h"
#include "plan/throughput.h"
#include "util/text.h"

namespace speedrun {
namespace {

struct Bench {
    Config config;
    StepSettings settings;
    Batch batch;
    at::Device device;
    int64_t threads, passes;
    double budget_ms;

    double micro_batches() const {
        return static_cast<double>(settings.batch_tokens) / static_cast<double>(settings.row_tokens);
    }
};

// Forward and backward of every node.
std::vector<TimedOp> time_nodes(const Bench& bench, GPT& model) {
    NodeTimer timer(bench.device);
    for (int64_t pass = 0; pass < bench.passes + 1; ++pass) {  // the first one takes memory
        model.forward_backward(bench.batch, bench.settings, 1, {}, &timer);
        timer.end_pass();
    }
    return timer.rows(pass_shape(bench.config, bench.settings), bench.micro_batches());
}

TimedOp time_update(const Bench& bench, Op op) {
    const auto call = op.prepare();
    const double ms = time_call(call, bench.device, bench.budget_ms);
    return {std::move(op), ms, kernels_of(call, bench.device)};
}

std::string names_of(const std::vector<TimedOp>& rows, const std::vector<Op>& updates) {
    std::set<std::string> names;
    for (const TimedOp& row : rows) names.insert(row.op.name);
    for (const Op& op : updates) names.insert(op.name);
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

std::vector<TimedOp> time_ops(const Bench& bench, const std::string& only) {
    const auto model = make_model(bench.config, std::nullopt, bench.settings.row_tokens, bench.device);
    model->use_prefixes(load_prefix_table(bench.config));
    std::vector<TimedOp> rows = time_nodes(bench, *model);
    std::vector<Op> updates = optimizer_ops(bench.config, model->graph(), bench.settings, bench.device);
    const std::string names = names_of(rows, updates);
    std::erase_if(rows, [&](const TimedOp& row) { return !row.op.name.starts_with(only); });
    std::erase_if(updates, [&](const Op& op) { return !op.name.starts_with(only); });
    if (rows.empty() && updates.empty())
        throw UserError("bench ops: no op's name begins with \"" + only + "\"; there are: " + names);
    for (Op& op : updates) rows.push_back(time_update(bench, std::move(op)));
    return rows;
}

void print(const Bench& bench, const std::vector<TimedOp>& timed, const MachineRates& rates, bool json) {
    const auto tokens = static_cast<int64_t>(bench.batch.inputs.size());
    if (json) {
        nlohmann::ordered_json all{{"device", bench.device.str()},
                                   {"threads", bench.threads},
                                   {"tokens", tokens},
                                   {"micro_batches", bench.micro_batches()},
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
        rates.bandwidth / 1e9, bench.micro_batches(), static_cast<long long>(tokens),
        ops_text(timed, rates).c_str());
}

Bench make_bench(const cxxopts::ParseResult& options) {
    auto overrides = value_or_empty<std::vector<std::string>>(options, "set");
    if (options.count("device") > 0)
        overrides.push_back("runtime.device=" + options["device"].as<std::string>());
    const auto document = whole<int64_t>(options, "document"), passes = whole<int64_t>(options, "passes");
    const double budget_ms = decimal(options, "ms");
    if (document < 1 || passes < 1 || !(budget_ms > 0))
        throw UserError("bench ops: --document, --passes and --ms must be positive");
    Config config = load_config(options["config"].as<std::string>(), overrides);
    StepSettings settings = settings_at(config, 0);
    settings.max_seq_len = std::min(document, settings.row_tokens);
    Batch batch = synthetic_batch(config, settings.row_tokens, document);
    const at::Device device = choose_device(config.runtime);
    const int64_t threads = set_threads(config.runtime);
    return {std::move(config), settings, std::move(batch), device, threads, passes, budget_ms};
}

int run(const cxxopts::ParseResult& options) {
    const Bench bench = make_bench(options);
    const auto timed = time_ops(bench, value_or_empty<std::string>(options, "only"));
    const MachineRates rates{measure_gemm_peak(activation_type(bench.config), bench.device),
                             measure_copy_bandwidth(bench.device)};
    print(bench, timed, rates, options.count("json") > 0);
    return 0;
}

}  // namespace

int bench_ops(int argc, char** argv) {
    cxxopts::Options specification(
        "speedrun bench ops",
        "Time every node of a model in forward and backward over a micro-batch, and every update of its "
        "optimizer, against the least time that their arithmetic and their memory traffic take here");
    auto add = specification.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>()->default_value("configs/quickstart.json"));
    add("set", "override a value, such as runtime.threads=1", cxxopts::value<std::vector<std::string>>());
    add("device", "cpu or cuda instead of the config's", cxxopts::value<std::string>());
    add("document", "tokens of a document", cxxopts::value<std::string>()->default_value("400"));
    add("passes", "forward and backward passes, after one that is not timed",
        cxxopts::value<std::string>()->default_value("5"));
    add("only", "ops whose names begin so, such as linear or attention.forward",
        cxxopts::value<std::string>());
    add("ms", "milliseconds to spend on each update, or six calls",
        cxxopts::value<std::string>()->default_value("250"));
    add("json", "one JSON object instead of a table");
    const auto options = parse_verb(specification, argc, argv, {});
    return options ? run(*options) : 0;
}

}  // namespace speedrun
