#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/bench/race_runner.h"
#include "app/build_info.h"
#include "app/session.h"
#include "app/verbs.h"
#include "config/matrix_rules.h"
#include "model/load_config.h"
#include "record/race/race_report.h"
#include "record/report/figure_files.h"
#include "util/atomic_file.h"
#include "util/diagnostics.h"
#include "util/error.h"
#include "util/exit_codes.h"
#include "util/files.h"
#include "util/folder_lock.h"
#include "util/process_setup.h"
#include "util/text.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

cxxopts::Options optimizers_options() {
    cxxopts::Options options(
        "speedrun bench optimizers",
        "A race of the rules of matrices: same model, tokens and initial weights; every rule as published, "
        "the config's own as the config says. Learning rates 1, 3, 10, 30, ... around the published one, on "
        "while the best is the outermost; then the best with the other seeds. The same command continues a "
        "race that was stopped.");
    auto add = options.add_options();
    add("config", "what is trained", cxxopts::value<std::string>()->default_value("configs/race.json"));
    add("set", "override a value for all runs", cxxopts::value<std::vector<std::string>>());
    add("out", "folder of the race", cxxopts::value<std::string>()->default_value("runs/race"));
    add("rules", "one that races, once for each, or track_3 for all of its; all but those if not given",
        cxxopts::value<std::vector<std::string>>());
    add("neighbours", "learning rates tried on each side of the published one; 0: no sweep",
        cxxopts::value<std::string>()->default_value("1"));
    add("seeds", "runs at the best learning rate", cxxopts::value<std::string>()->default_value("3"));
    add("short", "ten minutes: 32 steps, 1 seed, published learning rates only");
    add("target", "loss to reach; adamw's final one if not given", cxxopts::value<std::string>());
    add("png", "the pictures as PNG too (needs rsvg-convert)");
    return options;
}

template <size_t n>
std::vector<std::string> names_of(const std::array<MatrixRule, n>& rules) {
    std::vector<std::string> names;
    for (const MatrixRule& rule : rules) names.emplace_back(rule.name);
    return names;
}

// "track_3" stands for all of its results' rules.
std::vector<std::string> rules_of(const cxxopts::ParseResult& args) {
    const std::vector<std::string> all = names_of(matrix_rules), of_track_3 = names_of(track3_rules);
    std::vector<std::string> wanted;
    for (const std::string& rule : value_or_empty<std::vector<std::string>>(args, "rules")) {
        if (rule == "track_3")
            wanted.insert(wanted.end(), of_track_3.begin(), of_track_3.end());
        else if (std::ranges::find(all, rule) != all.end())
            wanted.push_back(rule);
        else
            throw UserError("bench optimizers: --rules " + in_quotes(rule) + "; allowed: track_3, " +
                            joined(all));
    }
    // Without a choice those of track 3 stay away: they are combinations of the others' parts.
    return wanted.empty() ? names_of(published_rules) : wanted;
}

RaceSetup setup_of(const cxxopts::ParseResult& args) {
    RaceSetup setup{.config = args["config"].as<std::string>(),
                    .overrides = value_or_empty<std::vector<std::string>>(args, "set"),
                    .folder = args["out"].as<std::string>()};
    if (args.count("short") > 0)
        for (const char* text :
             {"schedule.scheduled_steps=30", "schedule.extension_steps=2", "schedule.eval.every=8"})
            setup.overrides.emplace_back(text);
    return setup;
}

RacePlan plan_of(const cxxopts::ParseResult& args, const RaceSetup& setup) {
    const bool brief = args.count("short") > 0;
    const int64_t seeds = brief && args.count("seeds") == 0 ? 1 : whole<int64_t>(args, "seeds");
    if (seeds < 1 || seeds > 100) throw UserError("bench optimizers: --seeds must be from 1 to 100");
    const Config shared = load_config(setup.config, setup.overrides);
    RacePlan plan;
    plan.config_hash = shared.hash;
    plan.steps = shared.schedule.total_steps();
    plan.neighbours = brief && args.count("neighbours") == 0 ? 0 : whole<int>(args, "neighbours");
    if (plan.neighbours < 0 || plan.neighbours > 5)
        throw UserError("bench optimizers: --neighbours must be from 0 to 5");
    for (int64_t i = 0; i < seeds; ++i) plan.seeds.push_back(shared.runtime.seed + static_cast<uint64_t>(i));
    for (const std::string& rule : rules_of(args))
        plan.racers.push_back({rule, nearest_rung(setup.config_of(rule).optimizer.matrix.lr)});
    return plan;
}

// Rules may join a race, and stay away from it, at any time.
Race begin_or_continue(const RacePlan& plan, const fs::path& file) {
    if (!files::exists(file)) return {plan, {}, {}};
    Race race = read_race(file);
    race.plan.racers = plan.racers;
    if (race.plan != plan)
        throw UserError(file.string() +
                        ": a race with other seeds, steps, sweeps or another config; another --out, or the "
                        "command it was begun with");
    return race;
}

void write_pictures(const Race& race, double target, const RaceSetup& setup, bool png) {
    const fs::path page = setup.folder / "race.html";
    write_atomically(
        page, race_html(race, target, "Rules of matrices, " + std::to_string(race.plan.steps) + " steps",
                        "Made by speedrun " + build_version() + ", commit " + build_commit() + ", of " +
                            setup.config));
    std::vector<fs::path> written{page};
    const auto add = [&](const std::vector<fs::path>& more) {
        written.insert(written.end(), more.begin(), more.end());
    };
    add(write_svgs(race_figures(race, target), setup.folder));
    if (png) add(write_pngs(race_figures(race, target), setup.folder));
    for (const fs::path& path : written) std::puts(path.c_str());
}

int race_to_the_end(const cxxopts::ParseResult& args) {
    outlive_readers();
    const bool png = args.count("png") > 0;
    if (png) require_png();
    const RaceSetup setup = setup_of(args);
    const RacePlan plan = plan_of(args, setup);
    files::make_folders(setup.folder);
    const FolderLock lock(setup.folder);
    Race race = begin_or_continue(plan, setup.race_file());
    if (!run_race(race, setup)) {
        inform("{}: interrupted; the same command continues it", setup.folder.string());
        return kInterrupted;
    }
    std::fputs(plain_table(sweep_table(race)).c_str(), stdout);
    const auto target = args.count("target") > 0 ? decimal(args, "target") : default_target(race);
    if (!target) throw UserError("every rule diverged: nothing to compare");
    std::printf("\n%s\n", plain_table(standings_table(standings(race, *target), *target)).c_str());
    write_pictures(race, *target, setup, png);
    return 0;
}

}  // namespace

int bench_optimizers(int argc, char** argv) {
    cxxopts::Options options = optimizers_options();
    const auto args = parse_verb(options, argc, argv, {});
    return args ? race_to_the_end(*args) : 0;
}

}  // namespace speedrun
