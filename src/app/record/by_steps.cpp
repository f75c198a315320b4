#include "app/record/by_steps.h"

#include <algorithm>
#include <iostream>
#include <optional>

#include "app/arguments.h"
#include "app/record/options.h"
#include "app/record/sides.h"
#include "record/judge/check_report.h"
#include "record/judge/step_report.h"
#include "record/log/run_json.h"
#include "util/diagnostics.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

std::string check_text(const std::vector<StepJudgedGroup>& groups, const cxxopts::ParseResult& args) {
    if (args.count("json") > 0) return dump_json(step_check_json(groups)) + "\n";
    return args.count("markdown") > 0 ? step_check_markdown(groups) : step_check_table(groups);
}

// The side's result at the step that is asked for, else at the earliest that passes.
StepResult result_of(const std::string& path, std::optional<int64_t> step, Readout readout,
                     const cxxopts::ParseResult& args) {
    const StepVerdict verdict = judge_steps(side_of(path, true), target_of(args), step, readout);
    if (!verdict.result)
        throw UserError(path + ": " + verdict.reason +
                        (step ? "" : "; --at-step and --baseline-step say where to compare"));
    return *verdict.result;
}

}  // namespace

int check_by_steps(const cxxopts::ParseResult& args, const std::vector<std::filesystem::path>& paths) {
    refuse_options(args, {"baseline"});
    const double target = target_of(args);
    const auto at_step = step_of(args, "at-step");
    CollectOptions collect;
    collect.pool = args.count("pool") > 0;
    collect.counts_steps = true;
    const Collection runs = collect_runs(paths, collect);
    std::vector<StepJudgedGroup> groups;
    for (const RunGroup& group : runs.groups)
        groups.push_back({group, judge_steps(group, target, at_step, readout_of(args, "ema"))});
    if (!groups.empty() || args.count("json") > 0) std::cout << check_text(groups, args);
    tell_warnings(runs);
    if (!all_read(runs)) return kUserError;
    return judged(std::ranges::all_of(groups, [](const StepJudgedGroup& g) { return g.verdict.valid(); }));
}

int compare_by_steps(const cxxopts::ParseResult& args, const std::vector<std::string>& paths) {
    refuse_options(args, {"paired", "confidence"});
    if (paths.size() != 2) throw UserError("record compare: track 3 compares two sides, BASELINE and NEW");
    const auto step = step_of(args, "at-step"), own = step_of(args, "baseline-step");
    const StepResult baseline = result_of(paths[0], own ? own : step, readout_of(args, "baseline-ema"), args),
                     changed = result_of(paths[1], step, readout_of(args, "ema"), args);
    const StepComparison comparison = compare_steps(baseline, changed);
    if (args.count("json") > 0) {
        std::cout << dump_json(step_comparison_json(comparison)) << "\n";
    } else {
        std::cout << (args.count("markdown") > 0 ? step_comparison_markdown(comparison)
                                                 : step_comparison_text(comparison));
    }
    return judged(comparison.better);
}

void tell_warnings(const Collection& runs) {
    std::cout.flush();
    for (const auto& warning : collection_warnings(runs)) warn("{}", warning);
}

bool all_read(const Collection& runs) {
    return runs.problems.empty() && std::ranges::any_of(runs.groups, &RunGroup::has_log);
}

}  // namespace speedrun
