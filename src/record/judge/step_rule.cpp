#include "record/judge/step_rule.h"

#include <fmt/core.h>
#include <algorithm>
#include <cmath>
#include <map>

#include "record/judge/group_text.h"
#include "util/error.h"

namespace speedrun {
namespace {

// Losses are decimals, so that a margin may lie on the bound; as binary fractions they are off by 1e-15.
bool reaches_margin(double margin) {
    constexpr double kRounding = 1e-12;
    return margin >= kStepMargin - kRounding;
}

// nullopt where the log shows none.
std::optional<double> loss_of(const Validation& validation, Readout readout) {
    if (readout == Readout::weights) return validation.loss;
    return std::isnan(validation.ema_loss) ? std::nullopt : std::optional(validation.ema_loss);
}

// Step -> losses of the runs that were validated there, in the order of the runs.
using LossesByStep = std::map<int64_t, std::vector<double>>;

LossesByStep losses_by_step(const RunGroup& group, Readout readout) {
    LossesByStep losses;
    for (const GroupRun& run : group.runs)
        for (const Validation& v : run.run.validations)
            if (const auto loss = loss_of(v, readout); loss && v.step > 0) losses[v.step].push_back(*loss);
    return losses;
}

StepResult result_at(int64_t step, const std::vector<double>& losses, double target) {
    const Summary loss = summarize(losses);
    const double margin = (target - loss.mean) * std::sqrt(static_cast<double>(loss.n));
    return {step, loss, margin, reaches_margin(margin)};
}

std::vector<StepResult> common_steps(const RunGroup& group, double target, Readout readout) {
    std::vector<StepResult> results;
    for (const auto& [step, losses] : losses_by_step(group, readout))
        if (losses.size() == group.runs.size()) results.push_back(result_at(step, losses, target));
    return results;
}

// The first run that was not validated at `step`, and how far it came.
std::string missing_at(const RunGroup& group, int64_t step, Readout readout) {
    const auto is_there = [&](const Validation& v) { return v.step == step && loss_of(v, readout); };
    for (const GroupRun& run : group.runs)
        if (std::ranges::none_of(run.run.validations, is_there))
            return fmt::format(
                "{} has no {} at step {}, and ends with step {}", run_name(run.path, run.index),
                readout == Readout::ema ? "val_ema_loss" : "val_loss", step, run.run.final_step);
    throw InternalError("a common step that was left out");
}

// What a run that was stopped before the others means for all of them; "" where there is none.
std::string early_end(const RunGroup& group) {
    const auto [first, last] = std::ranges::minmax_element(
        group.runs, {}, [](const GroupRun& r) { return r.run.last_validation->step; });
    const int64_t end = first->run.last_validation->step;
    if (end == last->run.last_validation->step) return "";
    return fmt::format("; {} ends with step {}, and no step after it is common",
                       run_name(first->path, first->index), end);
}

std::string numbers(const StepResult& r, double target) {
    return fmt::format("at step {} the mean loss of {} runs is {:.6f}, and ({:g} - mean) sqrt(n) = {:.5f}",
                       r.step, r.loss.n, r.loss.mean, target, r.margin);
}

std::string why(const StepVerdict& verdict, const RunGroup& group, std::optional<int64_t> at_step,
                Readout readout) {
    if (group.runs.empty()) return "no run";
    if (verdict.valid())
        return numbers(*verdict.result, verdict.target) + fmt::format(" is not below {:g}", kStepMargin);
    if (at_step && !verdict.result) return missing_at(group, *at_step, readout);
    if (verdict.steps.empty()) return "there is no step at which every run was validated" + early_end(group);
    const std::string below = fmt::format(" is below {:g}", kStepMargin);
    if (at_step) return numbers(*verdict.result, verdict.target) + below;
    return "no common step passes: " + numbers(verdict.steps.back(), verdict.target) + below +
           early_end(group);
}

}  // namespace

StepVerdict judge_steps(const RunGroup& group, double target, std::optional<int64_t> at_step,
                        Readout readout) {
    StepVerdict verdict{target, common_steps(group, target, readout), std::nullopt, ""};
    const auto is_meant = [&](const StepResult& r) { return at_step ? r.step == *at_step : r.passes; };
    const auto found = std::ranges::find_if(verdict.steps, is_meant);
    if (found != verdict.steps.end()) verdict.result = *found;
    verdict.reason = why(verdict, group, at_step, readout);
    return verdict;
}

StepComparison compare_steps(const StepResult& baseline, const StepResult& changed) {
    StepComparison c{baseline, changed};
    c.by_loss = baseline.loss.mean - changed.loss.mean;
    c.by_steps = static_cast<double>(baseline.step - changed.step) * kLossPerStep;
    const double spread =
        std::sqrt(1 / static_cast<double>(baseline.loss.n) + 1 / static_cast<double>(changed.loss.n));
    c.margin = (c.by_loss + c.by_steps) / spread;
    c.better = reaches_margin(c.margin);
    return c;
}

}  // namespace speedrun
