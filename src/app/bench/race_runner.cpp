#include "app/bench/race_runner.h"

#include <fmt/core.h>
#include <cstdio>

#include "app/bench/update_costs.h"
#include "app/session.h"
#include "model/load_config.h"
#include "record/live/status_file.h"
#include "util/child_process.h"
#include "util/diagnostics.h"
#include "util/error.h"
#include "util/exit_codes.h"
#include "util/files.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTimedUpdates = 10;  // Shampoo's and SOAP's costly step is among them once

std::vector<std::string> with_rule(std::vector<std::string> overrides, const std::string& rule) {
    overrides.push_back("optimizer.matrix.rule=" + rule);
    return overrides;
}

fs::path run_dir_of(const RaceSetup& setup, const RaceEntry& entry) {
    return setup.folder / fmt::format("{}_lr{:g}_seed{}", entry.rule, ladder_lr(entry.rung), entry.seed);
}

std::vector<std::string> command_of(const RaceSetup& setup, const RaceEntry& entry) {
    std::vector<std::string> command{
        files::executable().string(),      "train",    "--config", setup.config, "--run-dir",
        run_dir_of(setup, entry).string(), "--resume", "auto",     "--overwrite"};
    auto settings = with_rule(setup.overrides, entry.rule);
    settings.push_back(fmt::format("optimizer.matrix.lr={:g}", ladder_lr(entry.rung)));
    settings.push_back("runtime.seed=" + std::to_string(entry.seed));
    for (const std::string& setting : settings) {
        command.emplace_back("--set");
        command.push_back(setting);
    }
    return command;
}

RaceRun result_of(const RaceSetup& setup, const RaceEntry& entry, const ChildEnd& end) {
    const fs::path folder = run_dir_of(setup, entry);
    RaceRun result{
        .rule = entry.rule, .rung = entry.rung, .seed = entry.seed, .validations = {}, .diverged = false};
    const RunLog log = files::exists(folder / "log.txt") ? read_run_log(folder / "log.txt") : RunLog{};
    const Run run = log.runs.size() == 1 ? log.runs.front() : Run{};
    result.diverged = read_state(folder / "status.json") == "diverged";
    if (end.exit_code == 0 && run.complete()) result.validations = run.validations;
    if (!result.diverged && result.validations.empty())
        throw UserError(folder.string() + ": the run ended with exit code " + std::to_string(end.exit_code) +
                        "; the same command continues the race with it");
    return result;
}

void announce(const Race& race, const RaceEntry& entry) {
    inform("run {}: {}, lr {:g}, seed {}", race.runs.size() + 1, entry.rule, ladder_lr(entry.rung),
           entry.seed);
}

void time_rules(Race& race, const RaceSetup& setup) {
    for (const auto& racer : race.plan.racers) {
        if (race.costs.contains(racer.rule)) continue;
        inform("{}: its update alone", racer.rule);
        const Config config = setup.config_of(racer.rule);
        set_threads(config.runtime);
        const UpdateCosts costs = time_updates(config, kTimedUpdates);
        race.costs[racer.rule] = {costs.mean_ms(), costs.state_bytes};
        write_race(race, setup.race_file());
    }
}

}  // namespace

Config RaceSetup::config_of(const std::string& rule) const {
    return load_config(config, with_rule(overrides, rule));
}

bool run_race(Race& race, const RaceSetup& setup) {
    time_rules(race, setup);
    while (const auto entry = next_run(race)) {
        announce(race, *entry);
        const ChildEnd end = run_child(command_of(setup, *entry), ChildOutput::to_stderr);
        if (end.interrupted || end.exit_code == kInterrupted) return false;
        race.runs.push_back(result_of(setup, *entry, end));
        write_race(race, setup.race_file());
        files::remove(run_dir_of(setup, *entry) / "weights.safetensors");
        files::remove_all(run_dir_of(setup, *entry) / "checkpoints");
    }
    return true;
}

}  // namespace speedrun
