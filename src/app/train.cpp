#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/build_info.h"
#include "app/resume.h"
#include "app/session.h"
#include "app/verbs.h"
#include "comm/gather_text.h"
#include "comm/make_communicator.h"
#include "comm/placement.h"
#include "job/job.h"
#include "model/load_config.h"
#include "model/weights.h"
#include "ops/head_loss.h"
#include "plan/graph_work.h"
#include "plan/memory_check.h"
#include "plan/rank_memory.h"
#include "plan/throughput.h"
#include "record/log/hardware.h"
#include "train/trainer.h"
#include "util/atomic_file.h"
#include "util/diagnostics.h"
#include "util/error.h"
#include "util/exit_codes.h"
#include "util/sha256.h"

namespace speedrun {
namespace {

cxxopts::Options train_options() {
    cxxopts::Options options("speedrun train", "Train a model as a config says.");
    auto add = options.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>());
    add("run-dir", "folder for log, metrics, curve and weights", cxxopts::value<std::string>());
    add("set", "override a value, such as optimizer.matrix.lr=0.02",
        cxxopts::value<std::vector<std::string>>());
    add("init", "start from the weights in this safetensors file", cxxopts::value<std::string>());
    add("resume",
        "go on from a checkpoint: its folder, a run's directory, or auto: --run-dir's, if it has one",
        cxxopts::value<std::string>());
    add("accept-changes", "resume though the config differs from that of the checkpoint");
    add("overwrite", "replace what an earlier run left in the run directory");
    add("diagnostics", "every N steps: RMS, update RMS and condition number of each matrix",
        cxxopts::value<int64_t>()->default_value("0"));
    add("help", "this text");
    return options;
}

// Of the whole files; 200 MB take half a second.
void append_checksums(DataShard::Use use, std::span<const std::filesystem::path> paths,
                      std::vector<DataShard>& shards) {
    for (const auto& path : paths) {
        std::error_code error;
        const auto bytes = std::filesystem::file_size(path, error);
        if (error)
            throw UserError(path.string() + ": cannot be read for its checksum, which the log lacks; " +
                            "everything else of the run is written: " + error.message());
        shards.push_back({use, path.string(), bytes, sha256_file(path)});
    }
}

std::vector<std::string> names(const std::vector<std::filesystem::path>& paths) {
    return {paths.begin(), paths.end()};
}

int64_t weights_bytes(const ParameterTable& parameters) {
    int64_t bytes = 0;
    for (const Parameter& parameter : parameters.all())
        bytes += static_cast<int64_t>(parameter.value.nbytes());
    return bytes;
}

// Whether `checkpoint` was written by the run in `dir`, whose log can then go on.
bool belongs_to(const Checkpoint& checkpoint, const RunDir& dir) {
    std::error_code error;
    return std::filesystem::equivalent(checkpoint.folder.parent_path(), dir.checkpoints(), error);
}

// Everything that one rank of a run works with. Rank 0 alone has a directory and a reporter.
struct Rank {
    const cxxopts::ParseResult& options;
    const std::string& command_line;
    const LaunchEnvironment& launch;
    Communicator& communicator;
    at::Device device;
    Interrupt& interrupt;
    const Config& config;

    bool leads() const { return launch.rank == 0; }
    std::string text(const char* name) const { return value_or_empty<std::string>(options, name); }
};

// What all ranks go on from: rank 0 chooses and checks it.
std::optional<Checkpoint> agree_on_checkpoint(const Rank& rank, std::vector<std::string>& notes) {
    const std::string where = rank.text("resume");
    if (where.empty()) return std::nullopt;
    std::optional<Checkpoint> chosen;
    if (rank.leads()) chosen = choose_checkpoint(where, rank.text("run-dir"), notes);
    const auto folders =
        gather_text(rank.communicator, chosen ? chosen->folder.string() : "", "checkpoint to resume");
    if (folders.front().empty()) return std::nullopt;
    if (!chosen) chosen = Checkpoint{folders.front(), read_manifest(folders.front() + "/checkpoint.json")};
    const auto changes = config_changes(*chosen, rank.config, rank.options.count("accept-changes") > 0);
    notes.push_back("resumed from " + chosen->folder.string() + " after step " +
                    std::to_string(chosen->manifest.step));
    for (const std::string& change : changes) notes.push_back("config differs: " + change);
    return chosen;
}

// A run that has ended left its weights. What another one left without a checkpoint, `--resume auto` begins
// anew: the same command then works whenever a job is cut.
RunDir open_run_dir(const Rank& rank, const GPT& model, bool resumes, std::vector<std::string>& notes) {
    constexpr int64_t log_bytes = 1 << 24;
    const int64_t expected_bytes = weights_bytes(model.parameters()) + log_bytes;
    const std::filesystem::path path = rank.text("run-dir");
    const bool used = std::filesystem::exists(path / "config.json");
    if (resumes && used) return RunDir::reopen(path, expected_bytes);
    const bool anew =
        used && rank.text("resume") == "auto" && !std::filesystem::exists(path / "weights.safetensors");
    if (anew) notes.emplace_back("the run that was here ended before its first checkpoint; it begins anew");
    return RunDir::create(
        path, {.overwrite = anew || rank.options.count("overwrite") > 0, .expected_bytes = expected_bytes});
}

std::unique_ptr<Reporter> make_reporter(const Rank& rank, const RunDir& dir,
                                        const RunDescription& description,
                                        const std::optional<Checkpoint>& checkpoint) {
    const Config& config = rank.config;
    const double peak = measure_gemm_peak(activation_type(config), rank.device);
    const double flop = flop_per_token(compile(config), pass_shape(config, settings_at(config, 0))).gemm;
    const int64_t total = config.schedule.total_steps();
    if (checkpoint && belongs_to(*checkpoint, dir)) {
        const auto& saved = checkpoint->manifest;
        return std::make_unique<Reporter>(dir, Reporter::Written{saved.log_bytes, saved.metrics_bytes},
                                          saved.train_time_ms, total, flop, peak);
    }
    auto reporter = std::make_unique<Reporter>(dir, description, total, flop, peak);
    if (config.numerics.lm_head.format == NumericsConfig::Head::Format::fp8 && !ops::has_fp8(rank.device))
        reporter->note("lm_head: " + rank.device.str() +
                       " has no FP8 arithmetic; it runs in the activations' dtype");
    return reporter;
}

// What is free is looked at before any rank has taken of it: each waits for all the others' figures.
void check_memory(const Rank& rank, const std::vector<RankPlacement>& placements) {
    if (!rank.config.runtime.memory_check) return;
    const auto own = free_memory(rank.device);
    const auto found = gather_text(rank.communicator, own ? std::to_string(*own) : "", "free memory");
    std::vector<RankRoom> rooms;
    for (size_t i = 0; i < placements.size(); ++i) {
        const RankPlacement& at = placements[i];
        // A rank has a GPU of its own, and may have been shown no other: "cuda:0" of a host is several then.
        RankRoom room{
            at.device == "cpu" ? at.host : at.device + " of " + at.host + ", rank " + std::to_string(i), {}};
        if (!found[i].empty()) room.free_bytes = std::stoll(found[i]);
        rooms.push_back(std::move(room));
    }
    require_memory(rank.config, rooms, rank.device.is_cpu() ? Operators::cpu : Operators::gpu);
}

struct Shards {
    std::vector<std::filesystem::path> train, val;
};

Shards find_shards_of(const Config& config) {
    Shards shards{find_shards(config.data.train), find_shards(config.data.val)};
    require_enough_data(shards.train, data_layout(config.data), step_shapes(config));
    return shards;
}

RunDescription describe(const Rank& rank, int64_t threads, const Shards& shards) {
    return {.date = log_date(std::chrono::system_clock::now()),
            .command_line = rank.command_line,
            .config_json = rank.config.resolved_json,
            .config_hash = rank.config.hash,
            .commit = build_commit(),
            .build = build_summary(),
            .libraries = library_versions(),
            .hardware = hardware_table(),
            .train_shards = names(shards.train),
            .val_shards = names(shards.val),
            .seed = rank.config.runtime.seed,
            .world_size = rank.launch.world_size,
            .threads = threads};
}

// What a rank has once the run can begin; directory and reporter on rank 0 alone.
struct Run {
    GPT& model;
    Trainer& trainer;
    const Shards& shards;
    std::optional<RunDir> dir;
    std::unique_ptr<Reporter> reporter;
};

// What a run leaves behind, however it ended. All ranks call it.
void leave(const Rank& rank, const Run& run) {
    const auto costs = gather_costs(run.trainer.costs(), rank.communicator);
    run.trainer.gather_weights();
    if (!run.reporter) return;
    if (rank.launch.world_size > 1)
        for (const std::string& line : costs_text(costs)) run.reporter->note(line);
    save_weights(run.model.parameters(), run.dir->weights());
    run.reporter->finish(run.dir->path().filename().string(), peak_memory(rank.device));
    std::vector<DataShard> data;
    append_checksums(DataShard::Use::training, run.trainer.train_shards_read(), data);
    append_checksums(DataShard::Use::validation, run.shards.val, data);
    run.reporter->data(data);
}

int run_to_its_end(const Rank& rank, const Run& run) {
    const auto& reporter = run.reporter;
    try {
        const RunEnd end = run.trainer.run(reporter.get(), rank.interrupt);
        leave(rank, run);
        if (reporter) {
            reporter->end(end == RunEnd::interrupted ? "interrupted" : "finished");
            std::printf("run directory: %s\n", run.dir->path().c_str());
        }
        return end == RunEnd::interrupted ? kInterrupted : 0;
    } catch (const NonFiniteLoss& error) {
        if (reporter) reporter->note(error.what());
        leave(rank, run);
        if (reporter) reporter->end("diverged", error.what());
        throw;
    } catch (const std::exception& error) {
        if (reporter) reporter->end("failed", error.what());
        throw;
    }
}

int train(const Rank& rank, Job& job) {
    const Config& config = rank.config;
    grad_accum_steps(config, rank.launch.world_size);
    const auto placements = gather_placements(rank.communicator, rank.device, config.runtime.threads);
    const int64_t threads = placements[static_cast<size_t>(rank.launch.rank)].threads;
    at::set_num_threads(static_cast<int>(threads));
    check_memory(rank, placements);
    const Shards shards = find_shards_of(config);
    const std::string init = rank.text("init");
    auto model =
        make_model(config, init.empty() ? std::nullopt : std::optional<std::filesystem::path>(init),
                   std::max(row_lengths(config).back(), config.data.val_micro_batch_tokens), rank.device);
    std::vector<std::string> notes;
    const auto checkpoint = agree_on_checkpoint(rank, notes);
    std::optional<RunDir> dir;
    if (rank.leads()) {
        dir.emplace(open_run_dir(rank, *model, checkpoint.has_value(), notes));
        write_atomically(dir->config(), config.resolved_json + "\n");
    }
    Trainer trainer(config, *model, rank.communicator, shards.train, shards.val,
                    {.diagnostics_every = rank.options["diagnostics"].as<int64_t>(),
                     .at_step = [&](int64_t step) { job.at_step(step); },
                     .checkpoints = std::filesystem::path(rank.text("run-dir")) / "checkpoints",
                     .build = build_commit()});
    if (checkpoint) trainer.resume(*checkpoint);
    std::unique_ptr<Reporter> reporter;
    if (rank.leads()) {
        reporter = make_reporter(rank, *dir, describe(rank, threads, shards), checkpoint);
        if (rank.launch.world_size > 1) reporter->note(placement_table(placements));
        for (const std::string& note : notes) reporter->note(note);
    }
    return run_to_its_end(rank, {*model, trainer, shards, std::move(dir), std::move(reporter)});
}

// Reads the config on every rank, and meets the others before anything is said about it: a mistake in it is
// then printed once. A rank that finds no GPU for itself cannot meet those that have one, and says so itself.
int train_on_all_ranks(const cxxopts::ParseResult& options, const std::string& command_line) {
    Interrupt interrupt;
    const LaunchEnvironment launch = read_launch_environment();
    if (launch.world_size > 1) name_rank_in_diagnostics(launch.rank);
    std::optional<Config> config;
    std::exception_ptr mistake;
    try {
        config = load_config(options["config"].as<std::string>(),
                             value_or_empty<std::vector<std::string>>(options, "set"));
    } catch (const UserError&) {
        mistake = std::current_exception();
    }
    const at::Device device = config ? choose_device(config->runtime, launch) : at::Device(at::kCPU);
    // Ranks that MPI did not start have a way to meet only where they run on GPUs.
    if (mistake && !launch.mpi) std::rethrow_exception(mistake);
    const auto communicator = make_communicator(launch, device);
    return run_job(*communicator, {}, [&](Job& job) {
        if (mistake) std::rethrow_exception(mistake);
        job.set_deadline(config->runtime.collective_deadline_s);
        job.require_same({{"config", config->hash}, {"build", build_commit() + ", " + build_summary()}});
        return train({options, command_line, launch, *communicator, device, interrupt, *config}, job);
    });
}

}  // namespace

int run_train(int argc, char** argv) {
    auto specification = train_options();
    const auto parsed = parse_verb(specification, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& options = *parsed;
    if (options["diagnostics"].as<int64_t>() < 0) throw UserError("train: --diagnostics must be 0 or more");
    for (const char* required : {"config", "run-dir"})
        if (options.count(required) == 0)
            throw UserError(std::string("train needs --") + required + "\n" + specification.help());
    std::string command_line = "speedrun";
    for (int i = 0; i < argc; ++i) command_line += std::string(" ") + argv[i];
    return train_on_all_ranks(options, command_line);
}

}  // namespace speedrun
