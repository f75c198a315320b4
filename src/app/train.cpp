#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/build_info.h"
#include "app/session.h"
#include "app/verbs.h"
#include "dist/make_communicator.h"
#include "model/weights.h"
#include "record/hardware.h"
#include "train/throughput.h"
#include "train/trainer.h"
#include "util/atomic_file.h"
#include "util/error.h"
#include "util/sha256.h"

namespace speedrun {
namespace {

constexpr int kInterrupted = 130;

cxxopts::Options train_options() {
    cxxopts::Options options("speedrun train", "Train a model as a config says.");
    auto add = options.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>());
    add("run-dir", "folder for log, metrics, curve and weights", cxxopts::value<std::string>());
    add("set", "override a value, such as optimizer.normuon.lr=0.02",
        cxxopts::value<std::vector<std::string>>());
    add("init", "start from the weights in this safetensors file", cxxopts::value<std::string>());
    add("overwrite", "replace what an earlier run left in the run directory");
    add("diagnostics", "every N steps: RMS, update RMS and condition number of each matrix",
        cxxopts::value<int64_t>()->default_value("0"));
    add("help", "this text");
    return options;
}

// Of the whole files; 200 MB take half a second.
void append_checksums(DataShard::Use use, std::span<const std::filesystem::path> paths,
                      std::vector<DataShard>& shards) {
    for (const auto& path : paths)
        shards.push_back({use, path.string(), std::filesystem::file_size(path), sha256_file(path)});
}

std::vector<std::string> names(const std::vector<std::filesystem::path>& paths) {
    return {paths.begin(), paths.end()};
}

RunDescription describe(const Config& config, const std::string& command_line,
                        const LaunchEnvironment& launch, int64_t threads,
                        const std::vector<std::filesystem::path>& train_shards,
                        const std::vector<std::filesystem::path>& val_shards) {
    return {.date = log_date(std::chrono::system_clock::now()),
            .command_line = command_line,
            .config_json = config.resolved_json,
            .config_hash = config.hash,
            .commit = build_commit(),
            .build = build_summary(),
            .libraries = library_versions(),
            .hardware = hardware_table(),
            .train_shards = names(train_shards),
            .val_shards = names(val_shards),
            .seed = config.runtime.seed,
            .world_size = launch.world_size,
            .threads = threads};
}

int64_t weights_bytes(const ParameterTable& parameters) {
    int64_t bytes = 0;
    for (const Parameter& parameter : parameters.all())
        bytes += static_cast<int64_t>(parameter.value.nbytes());
    return bytes;
}

// What only rank 0 does: the run directory and everything that is written to it.
std::unique_ptr<Reporter> make_reporter(const Config& config, const RunDescription& description,
                                        const RunDir& dir) {
    AtomicFile config_file(dir.config());
    config_file.write(config.resolved_json + "\n");
    config_file.commit();
    const double peak = measure_gemm_peak(activation_type(config), choose_device(config.runtime));
    auto reporter = std::make_unique<Reporter>(dir, description, config.schedule.total_steps(),
                                               gemm_flop_per_token(config.model), peak);
    if (config.numerics.lm_head.format == NumericsConfig::Head::Format::fp8)
        reporter->note("lm_head: this build has no FP8 head; it runs in the activations' dtype");
    return reporter;
}

RunDir make_run_dir(const cxxopts::ParseResult& options, const GPT& model) {
    constexpr int64_t log_bytes = 1 << 24;
    return RunDir::create(options["run-dir"].as<std::string>(),
                          {.overwrite = options.count("overwrite") > 0,
                           .expected_bytes = weights_bytes(model.parameters()) + log_bytes});
}

int train(const cxxopts::ParseResult& options, const std::string& command_line) {
    if (options["diagnostics"].as<int64_t>() < 0) throw UserError("train: --diagnostics must be 0 or more");
    Interrupt interrupt;
    const Config config = load_config(options["config"].as<std::string>(),
                                      value_or_empty<std::vector<std::string>>(options, "set"));
    const LaunchEnvironment launch = read_launch_environment();
    grad_accum_steps(config, launch.world_size);
    const int64_t threads = set_threads(config.runtime, launch);
    const auto train_shards = find_shards(config.data.train);
    const auto val_shards = find_shards(config.data.val);
    require_enough_data(train_shards, train_layout(config.data), step_shapes(config));
    const auto init = options.count("init") > 0
                          ? std::optional<std::filesystem::path>(options["init"].as<std::string>())
                          : std::nullopt;
    const auto communicator = make_communicator(launch, choose_device(config.runtime));
    auto model = make_model(config, init,
                            std::max(config.data.micro_batch_tokens, config.data.val_micro_batch_tokens));
    const bool reports = launch.rank == 0;
    std::optional<RunDir> dir;
    if (reports) dir = make_run_dir(options, *model);
    Trainer trainer(config, *model, *communicator, train_shards, val_shards,
                    {.diagnostics_every = options["diagnostics"].as<int64_t>(), .at_step = {}});
    std::unique_ptr<Reporter> reporter;
    if (reports)
        reporter = make_reporter(
            config, describe(config, command_line, launch, threads, train_shards, val_shards), *dir);
    const auto leave = [&] {
        const auto costs = gather_costs(trainer.costs(), *communicator);
        trainer.gather_weights();
        if (!reports) return;
        if (launch.world_size > 1)
            for (const std::string& line : costs_text(costs)) reporter->note(line);
        save_weights(model->parameters(), dir->weights());
        reporter->finish(dir->path().filename().string());
        std::vector<DataShard> data;
        append_checksums(DataShard::Use::training, trainer.train_shards_read(), data);
        append_checksums(DataShard::Use::validation, val_shards, data);
        reporter->data(data);
    };
    RunEnd end{};
    try {
        end = trainer.run(reporter.get(), interrupt);
    } catch (const NonFiniteLoss& error) {
        if (reports) reporter->note(error.what());
        leave();
        throw;
    }
    leave();
    if (reports) std::printf("run directory: %s\n", dir->path().c_str());
    return end == RunEnd::interrupted ? kInterrupted : 0;
}

}  // namespace

int run_train(int argc, char** argv) {
    auto specification = train_options();
    const auto options = parse_arguments(specification, argc, argv);
    if (options.count("help") > 0) {
        std::puts(specification.help().c_str());
        return 0;
    }
    for (const char* required : {"config", "run-dir"})
        if (options.count(required) == 0)
            throw UserError(std::string("train needs --") + required + "\n" + specification.help());
    std::string command_line = "speedrun";
    for (int i = 0; i < argc; ++i) command_line += std::string(" ") + argv[i];
    return train(options, command_line);
}

}  // namespace speedrun
