#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/record/by_steps.h"
#include "app/record/options.h"
#include "app/record/sides.h"
#include "app/verbs.h"
#include "record/judge/comparison.h"
#include "record/log/run_json.h"
#include "util/diagnostics.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCompareAbout =
    R"(Says what NEW brought over BASELINE: difference of the mean times with Welch's confidence interval, of
steps and of step times, and how much of the gain each of the two made. Either is a folder or a log. One
folder with the logs of both, which are told apart by steps, source and hardware, may be given instead;
the side that was started first is then the baseline.
Track 3: whether NEW is better than BASELINE by the track's pairwise rule, (difference of the losses +
0.0045 for 100 steps saved) / sqrt(1/n1 + 1/n2) >= 0.004, each at the earliest step at which it passes.
Exit code: 0 (track 3: better), 1 (track 3: not shown to be better), 2 where there is nothing to compare
or something could not be read.
)";

cxxopts::Options compare_options() {
    cxxopts::Options options("speedrun record compare", kCompareAbout);
    options.positional_help("BASELINE NEW");
    add_target_options(options);
    add_step_options(options);
    options.add_options()  //
        ("baseline-step", "track 3: the baseline's step, instead of --at-step",
         cxxopts::value<std::string>())                                                           //
        ("baseline-ema", "track 3: as --ema, for the baseline")                                   //
        ("confidence", "of the intervals", cxxopts::value<std::string>()->default_value("0.95"))  //
        ("paired", "also compare the i-th run of one side with the i-th of the other, by start")  //
        ("markdown", "print Markdown for a pull request")                                         //
        ("json", "print JSON")                                                                    //
        ("paths", "two folders or logs, or one folder", cxxopts::value<std::vector<std::string>>());
    options.parse_positional({"paths"});
    return options;
}

int64_t first_start(const RunGroup& group) {
    int64_t first = INT64_MAX;
    for (const GroupRun& r : group.runs) first = std::min(first, r.run.header.started.value_or(INT64_MAX));
    return first;
}

std::array<RunGroup, 2> sides_in(const fs::path& folder) {
    auto groups = groups_of(folder, false);
    if (groups.size() != 2)
        throw UserError(folder.string() + ": holds runs of " + std::to_string(groups.size()) +
                        " kinds (steps, source, hardware); two are needed to compare one folder");
    if (first_start(groups[1]) < first_start(groups[0])) std::swap(groups[0], groups[1]);
    for (RunGroup& group : groups) group.path = folder / ("(source " + group.source_hash + ")");
    return {std::move(groups[0]), std::move(groups[1])};
}

}  // namespace

int run_record_compare(int argc, char** argv) {
    cxxopts::Options options = compare_options();
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    const auto paths = value_or_empty<std::vector<std::string>>(args, "paths");
    if (paths.empty() || paths.size() > 2)
        throw UserError("record compare: a baseline and a new side are needed" + help_hint(options));
    if (track_of(args).counts_steps) return compare_by_steps(args, paths);
    refuse_options(args, {"target", "at-step", "baseline-step", "ema", "baseline-ema"});
    const auto [baseline, changed] = paths.size() == 1
                                         ? sides_in(paths[0])
                                         : std::array{side_of(paths[0], false), side_of(paths[1], false)};
    const Comparison comparison =
        compare_groups(baseline, changed, decimal(args, "confidence"), args.count("paired") > 0);
    if (args.count("json") > 0) {
        std::cout << dump_json(comparison_json(comparison)) << "\n";
    } else {
        std::cout << (args.count("markdown") > 0 ? comparison_markdown(comparison)
                                                 : comparison_text(comparison));
    }
    return 0;
}

}  // namespace speedrun
