#include <algorithm>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/record/by_steps.h"
#include "app/record/options.h"
#include "app/record/sides.h"
#include "app/verbs.h"
#include "record/judge/check_report.h"
#include "record/log/run_json.h"
#include "util/diagnostics.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

constexpr const char* kCheckAbout =
    R"(Judges the runs whose logs lie in folders (*.txt, *.log, at any depth) by the track's rules.
Tracks 1 and 2: the mean final validation loss is below the target with p < 0.01 (one-sided one-sample
t-test); a record's runs are also faster than those of --baseline, on the same hardware.
Track 3: (target - mean) sqrt(n) >= 0.004 at one step that every run has reached.
Runs are judged together within one folder, number of steps, source and kind of hardware (track 3: folder
and number of steps). Unfinished runs (track 3: those without a validation), further logs of a run, and
repeats of a seed are named and left out.
Exit code: 0 every group is below the target (with --baseline: a record; track 3: valid), 1 one is not,
2 an error: no log, or something in what was named could not be read.
)";

cxxopts::Options check_options() {
    cxxopts::Options options("speedrun record check", kCheckAbout);
    options.positional_help("FOLDERS|FILES...");
    add_target_options(options);
    add_step_options(options);
    options.add_options()  //
        ("baseline", "runs of the record before, a folder or a log, to be faster than",
         cxxopts::value<std::string>())                           //
        ("pool", "runs of different folders may form one group")  //
        ("markdown", "print Markdown for a pull request")         //
        ("json", "print a JSON list of the groups")               //
        ("paths", "folders or logs", cxxopts::value<std::vector<std::string>>());
    options.parse_positional({"paths"});
    return options;
}

bool passes(const Verdict& verdict, bool with_baseline) {
    return with_baseline ? verdict.record : verdict.below_target;
}

std::vector<std::filesystem::path> paths_of(const cxxopts::ParseResult& args) {
    std::vector<std::filesystem::path> paths;
    for (const auto& path : args["paths"].as<std::vector<std::string>>()) paths.emplace_back(path);
    return paths;
}

void print(const std::vector<JudgedGroup>& groups, const cxxopts::ParseResult& args) {
    if (args.count("json") > 0) {
        std::cout << dump_json(check_json(groups)) << "\n";
    } else {
        std::cout << (args.count("markdown") > 0 ? check_markdown(groups) : check_table(groups));
    }
}

}  // namespace

int run_record_check(int argc, char** argv) {
    cxxopts::Options options = check_options();
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    if (args.count("paths") == 0) throw UserError("record check: which folders?" + help_hint(options));
    const std::vector<std::filesystem::path> paths = paths_of(args);
    if (track_of(args).counts_steps) return check_by_steps(args, paths);
    refuse_options(args, {"at-step", "ema"});
    const double target = target_of(args);
    std::optional<RunGroup> baseline;
    if (args.count("baseline") > 0) baseline = side_of(args["baseline"].as<std::string>(), false);
    CollectOptions collect;
    collect.pool = args.count("pool") > 0;
    const Collection runs = collect_runs(paths, collect);
    const auto groups = judge_all(runs, target, baseline ? &*baseline : nullptr);
    if (!groups.empty() || args.count("json") > 0) print(groups, args);
    tell_warnings(runs);
    if (!all_read(runs)) return kUserError;
    return judged(std::ranges::all_of(
        groups, [&](const JudgedGroup& g) { return passes(g.verdict, baseline.has_value()); }));
}

}  // namespace speedrun
