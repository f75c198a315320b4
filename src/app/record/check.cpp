#include <algorithm>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/record/options.h"
#include "app/verbs.h"
#include "record/judge/check_report.h"
#include "record/log/run_json.h"
#include "util/diagnostics.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

cxxopts::Options check_options() {
    cxxopts::Options options(
        "speedrun record check",
        "Judges the runs whose logs lie in folders (*.txt, *.log, at any depth) by the track's rule: a "
        "record's\n"
        "mean final validation loss is below the target with p < 0.01 (one-sided one-sample t-test).\n"
        "Runs are compared within one folder, number of steps, source and kind of hardware; every such group "
        "is\n"
        "judged by itself. Unfinished runs, copies, and repeats of a seed are named and left out.\n"
        "Exit code: 0 every group is a record, 1 one is not, 2 an error: no log, or something in what was "
        "named "
        "could not be read.\n");
    options.positional_help("FOLDERS|FILES...");
    add_target_options(options);
    options.add_options()                                                         //
        ("pool", "runs of different folders may form one group")                  //
        ("markdown", "print Markdown for a pull request")                         //
        ("json", "print a JSON list of the groups")                               //
        ("paths", "folders or logs", cxxopts::value<std::vector<std::string>>())  //
        ("help", "this text");
    options.parse_positional({"paths"});
    return options;
}

int exit_code(const Collection& runs, const std::vector<JudgedGroup>& groups) {
    const bool any_log = std::ranges::any_of(runs.groups, &RunGroup::has_log);
    if (!any_log || !runs.problems.empty()) return kUserError;  // a verdict of a part is none
    return judged(std::ranges::all_of(groups, [](const JudgedGroup& g) { return g.verdict.record; }));
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
    const double target = target_of(args);
    std::vector<std::filesystem::path> paths;
    for (const auto& path : args["paths"].as<std::vector<std::string>>()) paths.emplace_back(path);
    CollectOptions collect;
    collect.pool = args.count("pool") > 0;
    const Collection runs = collect_runs(paths, collect);
    const auto groups = judge_all(runs, target);
    if (!groups.empty() || args.count("json") > 0) print(groups, args);
    std::cout.flush();
    for (const auto& warning : collection_warnings(runs)) warn("{}", warning);
    return exit_code(runs, groups);
}

}  // namespace speedrun
