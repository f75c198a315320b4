#include <ATen/ATen.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/bench/timing.h"
#include "app/session.h"
#include "app/verbs.h"
#include "model/load_config.h"
#include "ops/attention/attention.h"
#include "ops/attention/cudnn_attention.h"
#include "plan/rank_memory.h"
#include "util/json_document.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

// Documents as a training batch has them: of all lengths, about 1 in 10 cut at max_seq_len, and as many
// entries as the loader pads to.
at::Tensor document_starts(const Config& config, int64_t tokens) {
    std::mt19937_64 random(1);
    const int64_t longest = config.schedule.stages.front().max_seq_len;
    std::exponential_distribution<double> length(2.3 / static_cast<double>(longest));
    const auto entries = static_cast<size_t>(config.data.cu_seqlens_entries(tokens));
    std::vector<int32_t> starts;
    for (int64_t t = 0; t < tokens && starts.size() + 1 < entries;) {
        starts.push_back(static_cast<int32_t>(t));
        t += std::clamp<int64_t>(static_cast<int64_t>(length(random)), 1, longest);
    }
    starts.resize(std::max(entries, starts.size() + 1), static_cast<int32_t>(tokens));
    return at::tensor(starts, at::kInt);
}

// Every window of the schedule, in tokens.
std::set<int64_t> windows_of(const ScheduleConfig& schedule) {
    std::set<int64_t> blocks{schedule.eval.final_long_window};
    for (const Stage& stage : schedule.stages) blocks.insert({stage.window_short, stage.window_long});
    std::set<int64_t> windows;
    for (const int64_t count : blocks) windows.insert(count * schedule.block_size);
    return windows;
}

class AttentionBench {
  public:
    AttentionBench(const Config& config, int64_t tokens, at::Device device) : device_(device) {
        const ModelConfig& model = config.model;
        const auto options = at::TensorOptions().dtype(activation_type(config)).device(device);
        const std::vector<int64_t> shape{tokens, model.n_head, model.head_dim};
        for (at::Tensor& x : tensors_) x = at::randn(shape, options);
        lse_ = at::empty({model.n_head, tokens}, options.dtype(at::kFloat));
        starts_ = document_starts(config, tokens).to(device);
        longest_ = config.schedule.stages.front().max_seq_len;
    }

    Json measure(int64_t window, const std::string& name, const ops::Attention& attention) const {
        const auto& [q, k, v, out, dout, dq, dk, dv] = tensors_;
        const ops::AttentionMask mask{starts_, window, std::min(longest_, q.size(0))};
        constexpr double scale = 0.12;
        constexpr double budget_ms = 250;
        const double forward =
            time_call([&] { attention.forward(q, k, v, mask, scale, out, lse_); }, device_, budget_ms);
        const double backward = time_call(
            [&] {
                attention.backward(dout, q, k, v, out, lse_, mask, scale, {dq, dk, dv});
            },
            device_, budget_ms);
        return {{"window", window}, {"attention", name}, {"forward_ms", forward}, {"backward_ms", backward}};
    }

  private:
    at::Device device_;
    std::array<at::Tensor, 8> tensors_;
    at::Tensor lse_, starts_;
    int64_t longest_;
};

// Null where the device or the build has none; why, in `refused`.
std::unique_ptr<ops::cuda::CudnnAttention> cudnn_if_possible(at::Device device, std::string& refused) {
    try {
        return std::make_unique<ops::cuda::CudnnAttention>(device);
    } catch (const UserError& error) {
        refused = error.what();
        return nullptr;
    }
}

void print_table(const Json& result) {
    TextTable table{{"window", "attention", "forward, ms", "backward, ms"}};
    for (const Json& row : result["rows"])
        table.push_back({std::to_string(row["window"].get<int64_t>()), row["attention"],
                         fmt::format("{:.3f}", row["forward_ms"].get<double>()),
                         fmt::format("{:.3f}", row["backward_ms"].get<double>())});
    std::fputs(plain_table(table).c_str(), stdout);
    if (result.contains("cudnn_refused"))
        std::printf("%s\n", result["cudnn_refused"].get<std::string>().c_str());
}

int time_attention(const cxxopts::ParseResult& options) {
    const Config config = load_config(options["config"].as<std::string>(),
                                      value_or_empty<std::vector<std::string>>(options, "set"));
    const auto tokens_option = whole<int64_t>(options, "tokens");
    if (tokens_option < 0) throw UserError("bench attention: --tokens must not be negative");
    const int64_t tokens = tokens_option > 0 ? tokens_option : row_lengths(config).back();
    set_threads(config.runtime);
    const at::Device device = choose_device(config.runtime);
    using Backend = ops::Attention::Backend;
    const AttentionBench bench(config, tokens, device);
    const auto standard = ops::Attention::make(Backend::standard, device);
    const auto atomic = device.is_cuda() ? ops::Attention::make(Backend::flash_atomic, device) : nullptr;
    std::string refused;
    const auto cudnn = cudnn_if_possible(device, refused);
    Json result{{"tokens", tokens}, {"rows", Json::array()}};
    for (const int64_t window : windows_of(config.schedule)) {
        result["rows"].push_back(bench.measure(window, device.is_cuda() ? "flash" : "cpu", *standard));
        if (atomic) result["rows"].push_back(bench.measure(window, "flash_atomic", *atomic));
        if (cudnn) result["rows"].push_back(bench.measure(window, "cudnn", *cudnn));
    }
    if (cudnn)
        result["device_properties"] = cudnn->device_properties();
    else
        result["cudnn_refused"] = refused;
    options.count("json") > 0 ? void(std::puts(result.dump().c_str())) : print_table(result);
    return 0;
}

}  // namespace

int bench_attention(int argc, char** argv) {
    cxxopts::Options specification("speedrun bench attention",
                                   "Time attention in every window of a run's schedule, on a GPU by ATen's "
                                   "flash attention and by cuDNN");
    auto add = specification.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>());
    add("set", "override a value, such as runtime.device=cuda", cxxopts::value<std::vector<std::string>>());
    add("tokens", "tokens of the micro-batch; 0: the config's",
        cxxopts::value<std::string>()->default_value("0"));
    add("json", "one JSON object instead of a table");
    const auto options = parse_verb(specification, argc, argv, {"config"});
    return options ? time_attention(*options) : 0;
}

}  // namespace speedrun
