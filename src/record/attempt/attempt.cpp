#include "record/attempt/attempt.h"

#include <fmt/core.h>
#include <algorithm>

#include "util/error.h"
#include "util/files.h"
#include "util/text.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

std::string log_name(const AttemptRun& run, bool with_baseline) {
    const std::string name = fmt::format("run_{:02}_seed_{}.txt", run.index, run.seed);
    if (!with_baseline) return name;
    return (run.baseline ? "baseline/" : "this_record/") + name;
}

void require(bool same, const std::string& what, const std::string& stated, const std::string& wanted) {
    if (!same)
        throw UserError("this attempt was begun with " + what + " " + stated + ", not " + wanted +
                        ": what was stated before the first run cannot change; take another --out or --name");
}

std::string side_text(const AttemptSide& side) {
    std::string text = side.config;
    for (const auto& value : side.overrides) text += " --set " + value;
    return text + " (sha256 " + side.config_hash.substr(0, 12) + "...)";
}

std::string side_text(const std::optional<AttemptSide>& side) {
    return side ? side_text(*side) : "none";
}

Collection collect_logs(const Attempt& attempt, const fs::path& folder, bool baseline) {
    std::vector<fs::path> paths;
    for (const AttemptRun& run : attempt.runs)
        if (run.baseline == baseline && run.state != AttemptRun::State::waiting &&
            files::exists(folder / run.log))
            paths.push_back(folder / run.log);
    return collect_runs(paths);
}

std::string failed_runs(const Attempt& attempt) {
    std::string text;
    for (const AttemptRun& run : attempt.runs)
        if (!run.baseline && run.state == AttemptRun::State::failed)
            text +=
                (text.empty() ? "" : ", ") + run.log + " (exit code " + std::to_string(run.exit_code) + ")";
    return text;
}

}  // namespace

Attempt make_attempt(const AttemptPlan& plan) {
    Attempt attempt{plan, {}, std::nullopt};
    for (int64_t i = 0; i < plan.runs; ++i) {
        for (const bool baseline : {true, false}) {
            if (baseline && !plan.baseline) continue;
            AttemptRun run;
            run.baseline = baseline;
            run.index = i;
            run.seed = plan.first_seed + static_cast<uint64_t>(i);
            run.log = log_name(run, plan.baseline.has_value());
            attempt.runs.push_back(run);
        }
    }
    return attempt;
}

void require_same_plan(const AttemptPlan& stated, const AttemptPlan& wanted) {
    const auto number = [](auto value) { return std::to_string(value); };
    require(stated.attempt == wanted.attempt, "the config", side_text(stated.attempt),
            side_text(wanted.attempt));
    require(stated.baseline == wanted.baseline, "the baseline", side_text(stated.baseline),
            side_text(wanted.baseline));
    require(stated.runs == wanted.runs, "--runs", number(stated.runs), number(wanted.runs));
    require(stated.first_seed == wanted.first_seed, "the first seed", number(stated.first_seed),
            number(wanted.first_seed));
    require(stated.target == wanted.target, "the target", fmt::format("{:g}", stated.target),
            fmt::format("{:g}", wanted.target));
    require(stated.stop_rule == wanted.stop_rule, "--stop-rule", stop_rule_text(stated.stop_rule),
            stop_rule_text(wanted.stop_rule));
    require(stated.launch == wanted.launch, "--launch", in_quotes(stated.launch), in_quotes(wanted.launch));
    require(stated.commit == wanted.commit, "a program of commit", stated.commit, wanted.commit);
}

std::vector<double> losses_so_far(const Attempt& attempt, bool baseline) {
    std::vector<double> losses;
    for (const AttemptRun& run : attempt.runs)
        if (run.baseline == baseline &&
            (run.state == AttemptRun::State::done || run.state == AttemptRun::State::failed))
            losses.push_back(run.val_loss);
    return losses;
}

AttemptLogs read_attempt_logs(const Attempt& attempt, const fs::path& folder) {
    AttemptLogs logs{collect_logs(attempt, folder, false), std::nullopt};
    if (attempt.plan.baseline) logs.baseline = collect_logs(attempt, folder, true);
    return logs;
}

std::string repeated_runs(const AttemptLogs& logs) {
    std::vector<std::string> repeats;
    const auto add = [&](const Collection& runs) {
        for (const RunGroup& group : runs.groups)
            for (const Excluded& e : group.excluded)
                if (e.repeat) repeats.push_back(e.path.filename().string() + ": " + e.reason);
    };
    add(logs.attempt);
    if (logs.baseline) add(*logs.baseline);
    return joined(repeats, "; ");
}

const RunGroup* only_group(const Collection& runs) {
    const RunGroup* only = nullptr;
    for (const RunGroup& group : runs.groups) {
        if (group.runs.empty()) continue;
        if (only != nullptr) return nullptr;
        only = &group;
    }
    return only;
}

AttemptResult judge_attempt(const Attempt& attempt, const AttemptLogs& logs, const std::string& stopped) {
    AttemptResult result;
    result.significance = significance_level(attempt.plan.stop_rule, attempt.plan.runs);
    result.stopped = stopped;
    const RunGroup* const group = only_group(logs.attempt);
    const RunGroup* const baseline = logs.baseline ? only_group(*logs.baseline) : nullptr;
    result.groups = check_json(judge_all(logs.attempt, attempt.plan.target, baseline, result.significance));
    if (const std::string failed = failed_runs(attempt); !failed.empty()) {
        result.reason = "failed: " + failed;
    } else if (const std::string repeats = repeated_runs(logs); !repeats.empty()) {
        result.reason = "refused, as runs repeat others: " + repeats;
    } else if (group == nullptr) {
        result.reason = "the runs differ in steps, source or hardware, or none is complete";
    } else {
        const Verdict verdict = judge(*group, attempt.plan.target, baseline, result.significance);
        result.below_target = verdict.below_target;
        result.record = verdict.record;
        result.reason = verdict.reason;
    }
    if (group != nullptr && baseline != nullptr)
        result.comparison = comparison_json(compare_groups(*baseline, *group));
    return result;
}

}  // namespace speedrun
