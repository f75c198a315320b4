#include "record/race/race_report.h"

#include <fmt/core.h>
#include <algorithm>
#include <cmath>
#include <limits>

#include "record/report/figures.h"
#include "record/report/html_page.h"
#include "util/text.h"

namespace speedrun {
namespace {

std::vector<const RaceRun*> best_runs(const Race& race, const std::string& rule) {
    const auto best = best_rung(race, rule);
    std::vector<const RaceRun*> runs;
    for (const RaceRun& run : race.runs)
        if (best && run.rule == rule && run.rung == *best) runs.push_back(&run);
    return runs;
}

double mean_step_ms(const std::vector<const RaceRun*>& runs) {
    double ms = 0, steps = 0;
    for (const RaceRun* run : runs)
        if (!run->validations.empty()) {
            ms += run->validations.back().train_time_ms;
            steps += static_cast<double>(run->validations.back().step);
        }
    return steps > 0 ? ms / steps : kNotLogged;
}

Standing standing_of(const Race& race, const std::string& rule, double target) {
    const auto runs = best_runs(race, rule);
    Standing standing{.rule = rule,
                      .lr = ladder_lr(*best_rung(race, rule)),
                      .loss = {},
                      .steps_to = {},
                      .ms_to = {},
                      .step_ms = mean_step_ms(runs),
                      .costs = {}};
    std::vector<double> losses, steps, ms;
    for (const RaceRun* run : runs) {
        losses.push_back(run->final_loss());
        if (const auto crossing = first_crossing(*run, target)) {
            steps.push_back(crossing->step);
            ms.push_back(crossing->ms);
        }
    }
    standing.loss = summarize(losses);
    if (steps.size() == runs.size()) {
        standing.steps_to = summarize(steps);
        standing.ms_to = summarize(ms);
    }
    if (const auto cost = race.costs.find(rule); cost != race.costs.end()) standing.costs = cost->second;
    return standing;
}

std::string with_std(NumberFormat format, const Summary& summary, double unit = 1) {
    if (!std::isfinite(summary.mean)) return "diverged";
    const std::string mean = number_text(format, summary.mean / unit);
    return summary.n > 1 ? mean + " ± " + number_text(format, summary.std / unit) : mean;
}

// The runs of the best rate as a group of the figures of records.
FigureGroup figure_group(const Race& race, const std::string& rule, double target) {
    FigureGroup figure{.name = rule, .group = {}, .verdict = {}, .stalls = {}};
    for (const RaceRun* run : best_runs(race, rule)) {
        if (run->diverged) continue;
        Run shown;
        shown.validations = run->validations;
        shown.last_validation = run->validations.back();
        shown.final_step = run->validations.back().step;
        shown.train_time_ms = run->validations.back().train_time_ms;
        figure.group.runs.push_back({rule, 0, shown});
    }
    figure.verdict = judge(figure.group, target);
    return figure;
}

}  // namespace

std::optional<Crossing> first_crossing(const RaceRun& run, double target) {
    for (size_t i = 0; i < run.validations.size(); ++i) {
        const Validation& to = run.validations[i];
        if (!(to.loss <= target)) continue;
        if (i == 0) return Crossing{static_cast<double>(to.step), to.train_time_ms};
        const Validation& from = run.validations[i - 1];
        const double share = (from.loss - target) / (from.loss - to.loss);
        const auto between = [&](double a, double b) { return a + share * (b - a); };
        return Crossing{between(static_cast<double>(from.step), static_cast<double>(to.step)),
                        between(from.train_time_ms, to.train_time_ms)};
    }
    return std::nullopt;
}

std::optional<double> default_target(const Race& race) {
    const auto all = standings(race, 0);
    const auto adamw = std::ranges::find(all, "adamw", &Standing::rule);
    if (adamw != all.end() && std::isfinite(adamw->loss.mean)) return adamw->loss.mean;
    if (!all.empty() && std::isfinite(all.front().loss.mean)) return all.front().loss.mean;
    return std::nullopt;
}

std::vector<Standing> standings(const Race& race, double target) {
    std::vector<Standing> all;
    for (const auto& racer : race.plan.racers)
        if (best_rung(race, racer.rule)) all.push_back(standing_of(race, racer.rule, target));
    const auto rank = [](const Standing& standing) {  // infinite losses have NaN for a mean
        return std::isfinite(standing.loss.mean) ? standing.loss.mean
                                                 : std::numeric_limits<double>::infinity();
    };
    std::ranges::stable_sort(all, {}, rank);
    return all;
}

TextTable standings_table(const std::vector<Standing>& standings, double target) {
    TextTable table{{"rule", "lr", "final loss", fmt::format("steps to {:.3f}", target),
                     fmt::format("s to {:.3f}", target), "ms a step", "update, ms", "state, MiB"}};
    for (const Standing& s : standings)
        table.push_back(
            {s.rule, fmt::format("{:g}", s.lr), with_std("{:.4f}", s.loss),
             s.steps_to ? with_std("{:.0f}", *s.steps_to) : "–",
             s.ms_to ? with_std("{:.1f}", *s.ms_to, 1000) : "–", fmt::format("{:.0f}", s.step_ms),
             s.costs ? fmt::format("{:.1f}", s.costs->step_ms) : "–",
             s.costs ? fmt::format("{:.1f}", static_cast<double>(s.costs->state_bytes) / (1 << 20)) : "–"});
    return table;
}

TextTable sweep_table(const Race& race) {
    TextTable table{{"rule", "lr", "final loss with the first seed", ""}};
    for (const auto& racer : race.plan.racers) {
        std::vector<const RaceRun*> runs;
        for (const RaceRun& run : race.runs)
            if (run.rule == racer.rule && run.seed == race.plan.seeds.front()) runs.push_back(&run);
        std::ranges::sort(runs, {}, &RaceRun::rung);
        for (const RaceRun* run : runs)
            table.push_back({run->rule, fmt::format("{:g}", ladder_lr(run->rung)),
                             run->diverged ? "diverged" : fmt::format("{:.4f}", run->final_loss()),
                             run->rung == best_rung(race, run->rule) ? "best" : ""});
    }
    return table;
}

NamedFigures race_figures(const Race& race, double target) {
    std::vector<FigureGroup> groups;
    for (const Standing& standing : standings(race, target))
        groups.push_back(figure_group(race, standing.rule, target));
    return {{"loss_over_steps", loss_figure(groups, Over::steps)},
            {"loss_over_time", loss_figure(groups, Over::time)}};
}

std::string race_html(const Race& race, double target, const std::string& title, const std::string& made_by) {
    const auto figures = race_figures(race, target);
    std::string body = html_table(standings_table(standings(race, target), target));
    body += html_element(
        "p",
        "Mean and standard deviation over the seeds, each rule at its best learning rate of the sweep below. "
        "Steps and seconds to the target: where straight lines between validations reach it.",
        "muted");
    body += html_figure(figures[0].second, "Validation losses over steps, every seed.");
    body += html_figure(figures[1].second, "The same over training time, validations not counted.");
    body += html_element("h2", "Learning rates") + "\n" + html_table(sweep_table(race));
    return html_page(title, body, made_by);
}

}  // namespace speedrun
