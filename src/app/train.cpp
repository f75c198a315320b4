#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/build_info.h"
#include "app/resume.h"
#include "app/run_inputs.h"
#include "app/run_place.h"
#include "app/session.h"
#include "app/verbs.h"
#include "comm/gather_text.h"
#include "comm/make_communicator.h"
#include "comm/placement.h"
#include "data/prefix_table.h"
#include "job/job.h"
#include "model/load_config.h"
#include "model/weights.h"
#include "ops/fp8.h"
#include "ops/head_loss.h"
#include "plan/graph_work.h"
#include "plan/memory_check.h"
#include "plan/rank_memory.h"
#include "plan/throughput.h"
#include "record/live/status_file.h"
#include "record/log/hardware.h"
#include "train/checkpoint/keep.h"
#include "train/trainer.h"
#include "util/atomic_file.h"
#include "util/diagnostics.h"
#include "util/error.h"
#include "util/exit_codes.h"
#include "util/files.h"
#include "util/host_memory.h"
#include "util/process_setup.h"
#include "util/sha256.h"
#include "util/shell_words.h"

namespace speedrun {
namespace {

constexpr int64_t record_rows = 8;  // of every record

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
    add("accept-changes", "resume though config or shards differ from those of the checkpoint");
    add("overwrite", "replace what an earlier run left in the run directory");
    add("diagnostics", "every N steps: RMS, update RMS and condition number of each matrix",
        cxxopts::value<std::string>()->default_value("0"));
    return options;
}

// Of the whole files; 200 MB take half a second.
void append_checksums(DataShard::Use use, std::span<const std::filesystem::path> paths,
                      std::vector<DataShard>& shards) {
    for (const auto& path : paths) {
        try {
            shards.push_back({use, path.string(), files::size(path), sha256_file(path)});
        } catch (const UserError& error) {
            throw UserError(path.string() + ": cannot be read for its checksum, which the log lacks; " +
                            "everything else of the run is written: " + error.what());
        }
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

// What a run that goes on differs in from the one that wrote the checkpoint. UserError where that was not
// asked for.
void note_changes(const Rank& rank, const Checkpoint& checkpoint, const Shards& shards, int64_t threads,
                  std::vector<std::string>& notes) {
    const bool accepted = rank.options.count("accept-changes") > 0;
    const auto config = config_changes(checkpoint, rank.config, accepted);
    const auto data = data_changes(checkpoint, shards.train_read, shards.val_read, accepted);
    notes.push_back("resumed from " + checkpoint.folder.string() + " after step " +
                    std::to_string(checkpoint.manifest.step));
    for (const std::string& change : config) notes.push_back("config differs: " + change);
    for (const std::string& change : data) notes.push_back("data differ: " + change);
    const std::string parallel = parallel_change(checkpoint.manifest, rank.launch.world_size, threads);
    if (!parallel.empty()) notes.push_back(parallel);
}

// Rank 0's, which alone has a directory. Nothing in it changes.
std::optional<RunDir> claim_run_dir(const Rank& rank, const GPT& model,
                                    const std::optional<Checkpoint>& checkpoint,
                                    const std::vector<RankPlacement>& placements,
                                    std::vector<std::string>& notes) {
    constexpr int64_t log_bytes = 1 << 24;
    const std::filesystem::path path = rank.text("run-dir");
    std::optional<RunDir> dir;
    if (rank.leads()) {
        const PlaceWishes wishes{.automatic = rank.text("resume") == "auto",
                                 .overwrite = rank.options.count("overwrite") > 0};
        dir.emplace(RunDir::claim(path, {.former = former_run(path, checkpoint, wishes, notes),
                                         .expected_bytes = weights_bytes(model.parameters()) + log_bytes}));
    }
    require_common_folder(path, dir ? &*dir : nullptr, placements, rank.communicator);
    return dir;
}

// Everything that can be checked has been. What another run left goes, and this one's begins.
void begin_run_dir(RunDir& dir, const Config& config, const std::optional<Checkpoint>& checkpoint,
                   std::vector<std::string>& notes) {
    dir.begin();
    write_atomically(dir.config(), config.resolved_json + "\n");
    if (!checkpoint || !belongs_to(*checkpoint, dir.path())) return;
    for (std::string& line : set_aside_later(dir.checkpoints(), checkpoint->manifest.step))
        notes.push_back(std::move(line));
}

std::unique_ptr<Reporter> make_reporter(const Rank& rank, const RunDir& dir,
                                        const RunDescription& description,
                                        const std::optional<Checkpoint>& checkpoint) {
    const Config& config = rank.config;
    const double peak = measure_gemm_peak(activation_type(config), rank.device);
    const double flop = flop_per_token(compile(config), pass_shape(config, settings_at(config, 0))).gemm;
    const int64_t total = config.schedule.total_steps();
    if (checkpoint && belongs_to(*checkpoint, dir.path())) {
        const auto& saved = checkpoint->manifest;
        return std::make_unique<Reporter>(dir, description,
                                          Reporter::Written{saved.log_bytes, saved.metrics_bytes},
                                          saved.train_time_ms, total, flop, peak);
    }
    auto reporter = std::make_unique<Reporter>(dir, description, total, flop, peak);
    if (config.numerics.lm_head.format == NumericsConfig::Head::Format::fp8 && !ops::has_fp8(rank.device))
        reporter->note("lm_head: " + rank.device.str() +
                       " has no FP8 arithmetic; it runs in the activations' dtype");
    const NumericsConfig::Mlp& mlp = config.numerics.mlp;
    using Format = NumericsConfig::Mlp::Format;
    if ((mlp.up.format == Format::fp8 || mlp.down.format == Format::fp8) &&
        ops::fp8_storage(rank.device, activation_type(config)) != at::kFloat8_e4m3fn)
        reporter->note("mlp: " + rank.device.str() +
                       " has no FP8 products of these activations; numbers are rounded to FP8 all the same");
    return reporter;
}

// Of the limits that this rank's process has itself.
void require_address_space(const Rank& rank) {
    const auto left = rank.device.is_cpu() ? available_address_space() : std::nullopt;
    if (!left) return;
    const auto all = rank_memory(rank.config, compile(rank.config),
                                 plan_ownership(rank.config, rank.launch.world_size), Operators::cpu);
    const int64_t needed = all[static_cast<size_t>(rank.launch.rank)].peak();
    if (needed <= *left) return;
    throw UserError("too little memory: the run needs " + std::to_string(needed >> 20) +
                    " MiB, the limits of its process (ulimit -v, ulimit -d) leave " +
                    std::to_string(*left >> 20) +
                    " MiB; runtime.memory_check=false starts it without this check");
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
    require_address_space(rank);
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
    const RunDir* dir;
    Reporter* reporter;
};

// What a run leaves behind, however it ended. All ranks call it.
void leave(const Rank& rank, const Run& run) {
    const auto costs = gather_costs(run.trainer.costs(), rank.communicator);
    run.trainer.gather_weights();
    if (!run.reporter) return;
    if (rank.launch.world_size > 1)
        for (const std::string& line : costs_text(costs)) run.reporter->note(line);
    save_weights(run.model.parameters(), run.dir->weights());
    run.reporter->finish(run.dir->name(), peak_memory(rank.device));
    std::vector<DataShard> data;
    append_checksums(DataShard::Use::training, run.trainer.train_shards_read(), data);
    append_checksums(DataShard::Use::validation, std::span(run.shards.val).first(run.shards.val_read.size()),
                     data);
    run.reporter->data(data);
}

int run_to_its_end(const Rank& rank, const Run& run) {
    Reporter* const reporter = run.reporter;
    try {
        const RunEnd end = run.trainer.run(reporter, rank.interrupt);
        leave(rank, run);
        if (reporter) {
            reporter->end(end == RunEnd::interrupted ? "interrupted" : "finished");
            reporter->tell("run directory: " + run.dir->folder().where().string());
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

// Whether there is nothing left to do, on every rank.
bool nothing_to_do(const Rank& rank, const std::optional<Checkpoint>& checkpoint) {
    if (rank.text("resume") != "auto" || rank.options.count("overwrite") > 0) return false;
    const std::string run_dir = rank.text("run-dir");
    const bool finished = rank.leads() && is_finished(run_dir, rank.config, checkpoint);
    if (finished) std::printf("run directory %s: the run is finished already\n", run_dir.c_str());
    return gather_text(rank.communicator, finished ? "finished" : "", "state of the run").front() ==
           "finished";
}

void note_lines(const std::string& text, Reporter& reporter) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) reporter.note(line);
}

// Notes for the log which gradients ranks send each other by rows.
void note_rows(const Config& config, int64_t world_size, std::vector<std::string>& notes) {
    for (const OptimParamConfig& row : config.optimizer.params)
        if (row.comm == OptimParamConfig::Comm::sharded_sparse)
            notes.push_back(row.param + (world_size > 1
                                             ? ": ranks send each other the gradients of the rows that they "
                                               "have looked up (sharded_sparse)"
                                             : ": sharded_sparse, but one rank sends no gradients"));
}

int64_t all_threads(const std::vector<RankPlacement>& placements) {
    int64_t threads = 0;
    for (const RankPlacement& placement : placements) threads += placement.threads;
    return threads;
}

int train(const Rank& rank, Job& job) {
    const Config& config = rank.config;
    grad_accum_steps(config, rank.launch.world_size);
    const auto placements = gather_placements(rank.communicator, rank.device, config.runtime.threads);
    const RankPlacement& own = placements[static_cast<size_t>(rank.launch.rank)];
    require_threads(config.runtime, own.core_count);
    use_threads(own.threads);
    check_memory(rank, placements);
    const std::string init = rank.text("init");
    std::vector<std::string> notes;
    if (config.record > 0 && config.data.rows != record_rows)
        notes.push_back(fmt::format("data.rows is {}: record {} has {}, and a row is part of what it trains",
                                    config.data.rows, config.record, record_rows));
    note_rows(config, rank.launch.world_size, notes);
    const auto checkpoint =
        agree_on_checkpoint(rank.text("resume"), rank.text("run-dir"), rank.launch, rank.communicator, notes);
    if (nothing_to_do(rank, checkpoint)) return 0;  // whatever has become of the data since
    const Shards shards = find_shards_of(config);
    const std::vector<int64_t> prefixes = load_prefix_table(config);
    job.require_same(facts_of_inputs(shards, init, prefixes, checkpoint));
    if (checkpoint) note_changes(rank, *checkpoint, shards, all_threads(placements), notes);
    auto model =
        make_model(config, init.empty() ? std::nullopt : std::optional<std::filesystem::path>(init),
                   std::max(row_lengths(config).back(), config.data.val_micro_batch_tokens), rank.device);
    model->use_prefixes(prefixes);
    std::optional<RunDir> dir = claim_run_dir(rank, *model, checkpoint, placements, notes);
    Trainer trainer(config, *model, rank.communicator, shards.train, shards.val,
                    {.diagnostics_every = whole<int64_t>(rank.options, "diagnostics"),
                     .at_step = [&](int64_t step) { job.at_step(step); },
                     .checkpoints = std::filesystem::path(rank.text("run-dir")) / run_files::checkpoints,
                     .build = build_commit(),
                     .train_shards = shards.train_read,
                     .val_shards = shards.val_read,
                     .threads = all_threads(placements)});
    if (checkpoint) trainer.resume(*checkpoint);
    std::unique_ptr<Reporter> reporter;
    if (dir) {
        begin_run_dir(*dir, config, checkpoint, notes);
        reporter = make_reporter(rank, *dir, describe(rank, own.threads, shards), checkpoint);
        job.at_end([path = dir->status()](const std::string& why) { write_failure(path, why); });
        if (rank.launch.world_size > 1) note_lines(placement_table(placements), *reporter);
        for (const std::string& note : notes) reporter->note(note);
    }
    return run_to_its_end(rank, {*model, trainer, shards, dir ? &*dir : nullptr, reporter.get()});
}

// Reads the config on every rank, and meets the others before anything is said about it: a mistake in it is
// then printed once. A rank that finds no GPU for itself cannot meet those that have one, and says so itself.
// Signals act as usual until the config is there: it may come from a pipe.
int train_on_all_ranks(const cxxopts::ParseResult& options, const std::string& command_line) {
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
    Interrupt interrupt;
    const at::Device device = config ? choose_device(config->runtime, launch) : at::Device(at::kCPU);
    // Ranks that MPI did not start have a way to meet only where they run on GPUs.
    if (mistake && !launch.mpi) std::rethrow_exception(mistake);
    const auto communicator = make_communicator(launch, device);
    return run_job(*communicator, {}, [&](Job& job) {
        if (mistake) std::rethrow_exception(mistake);
        job.set_deadline(config->runtime.collective_deadline_s);
        job.require_same({{"config", config->hash},
                          {"build", build_commit() + ", " + build_summary()},
                          {"options", options_text(options)}});
        return train({options, command_line, launch, *communicator, device, interrupt, *config}, job);
    });
}

}  // namespace

int run_train(int argc, char** argv) {
    auto specification = train_options();
    const auto parsed = parse_verb(specification, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& options = *parsed;
    outlive_readers();
    if (whole<int64_t>(options, "diagnostics") < 0) throw UserError("train: --diagnostics must be 0 or more");
    for (const char* required : {"config", "run-dir"})
        if (options.count(required) == 0)
            throw UserError(std::string("train needs --") + required + help_hint(specification));
    std::string command_line = "speedrun";
    for (int i = 0; i < argc; ++i) command_line += " " + shell_word(argv[i]);
    return train_on_all_ranks(options, command_line);
}

}  // namespace speedrun
