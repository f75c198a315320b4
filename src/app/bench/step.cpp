#include <ATen/core/Tensor.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/bench/counted_graphs.h"
#include "app/bench/step_shares.h"
#include "app/bench/timing.h"
#include "app/session.h"
#include "app/verbs.h"
#include "comm/make_communicator.h"
#include "data/prefix_table.h"
#include "model/load_config.h"
#include "ops/cuda/gpu.h"
#include "ops/gemm.h"
#include "optim/optimizer.h"
#include "plan/graph_work.h"
#include "plan/memory_check.h"
#include "plan/rank_memory.h"
#include "plan/step_floor.h"
#include "plan/throughput.h"
#include "train/trainer.h"

namespace speedrun {
namespace {

struct StepTimes {
    std::vector<double> forward_backward_ms, optimizer_ms;
    std::vector<PartTimes> parts;
    std::vector<bool> adam;
};

void wait_for_device(GPT& model) {
    model.parameters().all().front().value.view(-1)[0].item();
}

// `step` counts from 0; the optimizer's cadence follows it. `parts`: may be null.
StepTimes time_steps(GPT& model, Optimizer& optimizer, const Config& config, const Batch& batch,
                     int64_t steps, StepTimer* parts) {
    using Clock = std::chrono::steady_clock;
    const auto milliseconds = [](Clock::duration d) {
        return std::chrono::duration<double, std::milli>(d).count();
    };
    StepTimes times;
    for (int64_t step = 0; step < steps; ++step) {
        StepSettings settings = settings_at(config, 0);
        settings.row_tokens = static_cast<int64_t>(batch.inputs.size());
        settings.max_seq_len = std::min(settings.max_seq_len, settings.row_tokens);
        settings.adam_steps = settings_at(config, step % config.schedule.total_steps()).adam_steps;
        const auto start = Clock::now();
        model.forward_backward(batch, settings, 1, {}, parts).item<double>();
        const auto middle = Clock::now();
        optimizer.step(settings, parts);
        wait_for_device(model);
        const auto end = Clock::now();
        times.forward_backward_ms.push_back(milliseconds(middle - start));
        times.optimizer_ms.push_back(milliseconds(end - middle));
        if (parts) times.parts.push_back(parts->take());
        times.adam.push_back(settings.adam_steps);
    }
    return times;
}

// Against a machine with the rates that were measured here. Products in FP8 count at `rates.bf16_flops` too.
StepShares shares_of(const StepTimes& times, const Config& config, const Graph& graph, int64_t tokens,
                     int64_t document, const Machine& rates) {
    const Ownership ownership = plan_ownership(config, 1);
    StepSettings settings = settings_at(config, 0);
    settings.batch_tokens = settings.row_tokens = tokens;
    settings.max_seq_len = std::min(tokens, document);
    StepShares shares;
    for (size_t i = 0; i < times.parts.size(); ++i) {
        settings.adam_steps = times.adam[i];
        const StepFloor floor = step_floor(config, graph, ownership, settings, rates, /*ranks_per_node=*/1);
        shares.add(times.parts[i], 1000 * floor.overlapped());
    }
    return shares;
}

// The same steps launched from CUDA graphs.
struct CapturedTimes {
    StepTimes times;
    double launches = 0, kernels = 0;  // of a step, by graphs
};

CapturedTimes time_captured_steps(GPT& model, Optimizer& optimizer, const Config& config, const Batch& batch,
                                  int64_t steps) {
    const auto graphs = std::make_shared<CountedGraphs>(ops::cuda::make_graphs());
    model.capture_with(graphs);
    optimizer.capture_with(graphs);
    constexpr int64_t until_captured = 8;  // two of each, with and without Adam, for either place of a batch
    time_steps(model, optimizer, config, batch, until_captured, nullptr);
    const int64_t launches = graphs->launches(), kernels = graphs->kernels();
    CapturedTimes found{time_steps(model, optimizer, config, batch, steps, nullptr)};
    found.launches = static_cast<double>(graphs->launches() - launches) / static_cast<double>(steps);
    found.kernels = static_cast<double>(graphs->kernels() - kernels) / static_cast<double>(steps);
    return found;
}

struct Found {
    int64_t tokens = 0, threads = 0;
    StepTimes times;
    std::optional<CapturedTimes> captured;
    StepShares shares;
    double peak_mb = 0;        // as in memory_check.h
    double gemm_peak = 0;      // FLOP/s
    double gemm_floor_ms = 0;  // of forward and backward
    std::string gemm_backend;
};

void print_json(const Found& found) {
    nlohmann::json json{{"forward_backward_ms", found.times.forward_backward_ms},
                        {"optimizer_ms", found.times.optimizer_ms},
                        {"peak_memory_mb", found.peak_mb},
                        {"gemm_floor_ms", found.gemm_floor_ms},
                        {"gemm_peak_gflops", found.gemm_peak / 1e9},
                        {"tokens", found.tokens},
                        {"threads", found.threads}};
    json.update(shares_json(found.shares));
    if (found.captured)
        json["cuda_graphs"] = {{"forward_backward_ms", found.captured->times.forward_backward_ms},
                               {"optimizer_ms", found.captured->times.optimizer_ms},
                               {"launches", found.captured->launches},
                               {"kernels", found.captured->kernels}};
    std::puts(json.dump().c_str());
}

void print_text(const Found& found) {
    const double forward_backward = median(found.times.forward_backward_ms);
    std::printf("GEMM backend        %s, %lld threads, peak %.0f GFLOP/s\n", found.gemm_backend.c_str(),
                static_cast<long long>(found.threads), found.gemm_peak / 1e9);
    std::printf("forward + backward  %8.1f ms  (%lld tokens; GEMM floor %.1f ms, %.0f %% of it reached)\n",
                forward_backward, static_cast<long long>(found.tokens), found.gemm_floor_ms,
                100 * found.gemm_floor_ms / forward_backward);
    std::printf("optimizer           %8.1f ms  (median over steps with and without Adam)\n",
                median(found.times.optimizer_ms));
    if (found.captured)
        std::printf(
            "from CUDA graphs    %8.1f ms, optimizer %.1f ms  (%.0f launches of %.0f kernels a step)\n",
            median(found.captured->times.forward_backward_ms), median(found.captured->times.optimizer_ms),
            found.captured->launches, found.captured->kernels);
    std::printf("peak memory         %8.0f MB\n", found.peak_mb);
    std::printf("of a step           %s\n", shares_text(found.shares).c_str());
}

int time_step(const cxxopts::ParseResult& options) {
    const auto tokens_option = whole<int64_t>(options, "tokens");
    const auto steps = whole<int64_t>(options, "steps"), document = whole<int64_t>(options, "document");
    const Config config = load_config(options["config"].as<std::string>(),
                                      value_or_empty<std::vector<std::string>>(options, "set"));
    Found found;
    found.tokens = tokens_option > 0 ? tokens_option : settings_at(config, 0).row_tokens;
    if (found.tokens < 1 || steps < 1 || document < 1)
        throw UserError("bench step: --tokens, --steps and --document must be positive");
    found.threads = set_threads(config.runtime);
    const at::Device device = choose_device(config.runtime);
    const auto model = make_model(config, std::nullopt, found.tokens, device);
    model->use_prefixes(load_prefix_table(config));
    const auto communicator = make_self_communicator();
    Optimizer optimizer(config, model->parameters(), *communicator);
    const Batch batch = synthetic_batch(config, found.tokens, document);
    StepTimer parts(device);
    time_steps(*model, optimizer, config, batch, 2, &parts);  // workspaces and kernels
    found.times = time_steps(*model, optimizer, config, batch, steps, &parts);
    if (device.is_cuda() && config.runtime.cuda_graphs)
        found.captured = time_captured_steps(*model, optimizer, config, batch, steps);
    found.peak_mb = static_cast<double>(peak_memory(device).allocated) / (1 << 20);
    const at::ScalarType dtype = activation_type(config);
    found.gemm_backend = ops::gemm_backend(dtype);
    found.gemm_peak = measure_gemm_peak(dtype, device);
    const PassShape shape = pass_shape(config, settings_at(config, 0));
    found.gemm_floor_ms = 1000 * flop_per_token(model->graph(), shape).gemm *
                          static_cast<double>(found.tokens) / found.gemm_peak;
    Machine rates;
    rates.bf16_flops = found.gemm_peak;
    rates.memory_bandwidth = measure_copy_bandwidth(device);
    found.shares = shares_of(found.times, config, model->graph(), found.tokens, document, rates);
    options.count("json") > 0 ? print_json(found) : print_text(found);
    return 0;
}

}  // namespace

int bench_step(int argc, char** argv) {
    cxxopts::Options specification("speedrun bench step", "Time a training step on random tokens");
    auto add = specification.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>());
    add("set", "override a value, such as numerics.activations=fp32",
        cxxopts::value<std::vector<std::string>>());
    add("tokens", "tokens of the micro-batch; 0: the config's",
        cxxopts::value<std::string>()->default_value("0"));
    add("document", "tokens of a document", cxxopts::value<std::string>()->default_value("400"));
    add("steps", "timed steps, after two that are not", cxxopts::value<std::string>()->default_value("10"));
    add("json", "one JSON object instead of a table");
    const auto options = parse_verb(specification, argc, argv, {"config"});
    return options ? time_step(*options) : 0;
}

}  // namespace speedrun
