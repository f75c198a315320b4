#include <fmt/core.h>
#include <cmath>

#include "record/attempt/attempt.h"
#include "util/shell_words.h"
#include "util/text.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

std::string command_of(const Attempt& attempt) {
    const AttemptPlan& plan = attempt.plan;
    std::string text = "speedrun record attempt " + shell_word(plan.attempt.config);
    for (const auto& value : plan.attempt.overrides) text += " --set " + shell_word(value);
    if (plan.baseline) text += " --baseline " + shell_word(plan.baseline->config);
    text += " --runs " + std::to_string(plan.runs) + " --seed " + std::to_string(plan.first_seed) +
            fmt::format(" --target {:g} --stop-rule ", plan.target) + stop_rule_text(plan.stop_rule);
    if (!plan.launch.empty()) text += " --launch " + shell_word(plan.launch);
    return text + " --name " + shell_word(plan.name);
}

// "losses = [3.2772, ...]", as records are handed in.
std::string list_of(const char* name, const Attempt& attempt, bool baseline, NumberFormat format,
                    double AttemptRun::*value, double unit) {
    std::string text = std::string("  ") + name + " = [";
    int n = 0;
    for (const AttemptRun& run : attempt.runs) {
        if (run.baseline != baseline || run.state == AttemptRun::State::waiting) continue;
        text += (n++ > 0 ? ", " : "") + number_text(format, run.*value / unit, "nan");
    }
    return text + "]\n";
}

std::string lists(const Attempt& attempt) {
    std::string text = "```\n";
    for (const bool baseline : {true, false}) {
        if (baseline && !attempt.plan.baseline) continue;
        text += baseline ? "baseline:\n" : attempt.plan.name + ":\n";
        text += list_of("losses", attempt, baseline, "{:.4f}", &AttemptRun::val_loss, 1);
        text += list_of("times ", attempt, baseline, "{:.3f}", &AttemptRun::train_time_ms, 1000);
    }
    return text + "```\n";
}

std::string verdict_of(const AttemptResult& result) {
    std::string text = "**" + verdict_text(result.below_target, result.record) + "**: " + result.reason + ".";
    if (!result.stopped.empty()) text += " The attempt ended early (" + result.stopped + ").";
    return text + "\n";
}

std::string how(const Attempt& attempt) {
    const AttemptPlan& plan = attempt.plan;
    std::string text = "## How it was run\nStated in `summary.json` before the first run:\n\n";
    text += "- target " + fmt::format("{:g}", plan.target) +
            fmt::format(", one-sided one-sample t-test at p < {:.3g}\n",
                        significance_level(plan.stop_rule, plan.runs));
    text += "- runs: " + std::to_string(plan.runs) + "; stop rule `" + stop_rule_text(plan.stop_rule) +
            "`: " + explain(plan.stop_rule, plan.runs) + "\n";
    text += "- seeds: run i, counted from 0, has seed " + std::to_string(plan.first_seed) + " + i\n";
    if (plan.baseline) text += "- runs of the baseline and of the attempt take turns, with the same seeds\n";
    text += "- program: commit " + plan.commit + "\n\n";
    int64_t repeated = 0;
    for (const AttemptRun& run : attempt.runs) repeated += std::max<int64_t>(run.starts - 1, 0);
    if (repeated > 0)
        text += std::to_string(repeated) + " runs were interrupted and started again with the same seed.\n\n";
    return text + "```\n" + command_of(attempt) + "\n```\n";
}

}  // namespace

std::string attempt_readme(const Attempt& attempt, const AttemptLogs& logs, const std::string& difference) {
    const AttemptPlan& plan = attempt.plan;
    std::string text = "# " + plan.name + "\n" + plan.date + ". ";
    text += "The config is `config.json`, resolved from `" + plan.attempt.config + "`";
    for (const auto& value : plan.attempt.overrides) text += ", `" + value + "`";
    text += ".\n\n";
    if (plan.baseline)
        text += "What differs from the baseline (`baseline_config.json`):\n\n```\n" +
                (difference.empty() ? "nothing\n" : difference) + "```\n\n";
    text += "## Result\n" + (attempt.result ? verdict_of(*attempt.result) : "") + "\n";
    const RunGroup* const own = only_group(logs.attempt);
    const RunGroup* const baseline = logs.baseline ? only_group(*logs.baseline) : nullptr;
    const double significance = significance_level(plan.stop_rule, plan.runs);
    text +=
        check_markdown(judge_all(logs.attempt, plan.target, baseline, significance)) + "\n" + lists(attempt);
    if (own != nullptr && baseline != nullptr)
        text += "\n## Against the baseline\n" + comparison_markdown(compare_groups(*baseline, *own));
    return text + "\n" + how(attempt) +
           fmt::format(
               "\n`speedrun record check --target {:g}` judges it again, `speedrun record report` shows "
               "it.\n",
               plan.target);
}

}  // namespace speedrun
