#include "record/judge/step_report.h"

#include <fmt/core.h>
#include <algorithm>
#include <set>

#include "record/judge/group_text.h"
#include "record/log/run_json.h"
#include "util/json_document.h"
#include "util/text.h"
#include "util/text_table.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

constexpr const char* kMargin = "(target - mean) sqrt(n)";

std::string verdict_of(const StepVerdict& verdict) {
    return verdict.valid() ? "valid" : "not valid";
}

// What the group's runs were logged with.
template <typename Value>
std::set<std::string> values_of(const RunGroup& group, const Value& value) {
    std::set<std::string> values;
    for (const GroupRun& run : group.runs)
        if (const std::string text = value(run.run.header); !text.empty()) values.insert(text);
    return values;
}

std::set<std::string> sources_of(const RunGroup& group) {
    return values_of(group, [](const RunHeader& header) { return header.source_hash; });
}

std::set<std::string> hardware_of(const RunGroup& group) {
    return values_of(group, [](const RunHeader& header) { return header.hardware.text(); });
}

Json step_json(const StepResult& r) {
    return {{"step", r.step},
            {"n", r.loss.n},
            {"mean_loss", finite_or_null(r.loss.mean)},
            {"std_loss", finite_or_null(r.loss.std)},
            {"margin", finite_or_null(r.margin)},
            {"passes", r.passes}};
}

Json steps_json(const std::vector<StepResult>& steps) {
    Json list = Json::array();
    for (const StepResult& r : steps) list.push_back(step_json(r));
    return list;
}

Json runs_json(const RunGroup& group) {
    Json list = Json::array();
    for (const GroupRun& r : group.runs)
        list.push_back({{"path", r.path.string()},
                        {"run", r.index},
                        {"final_step", r.run.final_step},
                        {"val_loss", finite_or_null(r.run.last_validation->loss)}});
    return list;
}

Json group_json(const StepJudgedGroup& judged) {
    const auto& [group, v] = judged;
    return {{"path", group.path.string()},
            {"n", group.runs.size()},
            {"scheduled_steps", group.steps},
            {"target", v.target},
            {"verdict", verdict_of(v)},
            {"reason", v.reason},
            {"step", v.result ? Json(v.result->step) : Json(nullptr)},
            {"mean_loss", v.result ? finite_or_null(v.result->loss.mean) : Json(nullptr)},
            {"margin", v.result ? finite_or_null(v.result->margin) : Json(nullptr)},
            {"steps", steps_json(v.steps)},
            {"sources", sources_of(group)},
            {"hardware", hardware_of(group)},
            {"runs", runs_json(group)},
            {"excluded", excluded_json(group)}};
}

std::vector<std::string> cells_of(const StepResult& r) {
    return {std::to_string(r.step),
            std::to_string(r.loss.n),
            number_text("{:.6f}", r.loss.mean),
            number_text("{:.6f}", r.loss.std),
            number_text("{:.5f}", r.margin),
            r.passes ? "passes" : "fails"};
}

TextTable group_table(const std::vector<StepJudgedGroup>& groups) {
    TextTable rows = {{"folder", "scheduled", "step", "n", "mean loss", "std", kMargin, "verdict"}};
    for (const auto& [group, v] : groups) {
        std::vector<std::string> row = {group.name(), std::to_string(group.steps)};
        const auto cells =
            v.result ? cells_of(*v.result)
                     : std::vector<std::string>{"-", std::to_string(group.runs.size()), "-", "-", "-", ""};
        row.insert(row.end(), cells.begin(), cells.end());
        row.back() = verdict_of(v);
        rows.push_back(row);
    }
    return rows;
}

TextTable step_table(const StepVerdict& verdict) {
    TextTable rows = {{"step", "n", "mean loss", "std", kMargin, ""}};
    if (verdict.steps.empty()) return rows;
    const int64_t last_tenth = verdict.steps.back().step * 9 / 10;
    const int64_t from = verdict.result ? std::min(last_tenth, verdict.result->step) : last_tenth;
    for (const StepResult& r : verdict.steps)
        if (r.step >= from) rows.push_back(cells_of(r));
    return rows;
}

std::string what_differs(const RunGroup& group) {
    std::string text;
    if (const auto hardware = hardware_of(group); !hardware.empty()) text = "hardware " + joined(hardware);
    if (const auto sources = sources_of(group); !sources.empty())
        text += (text.empty() ? "" : "; ") +
                (sources.size() == 1 ? "source " : std::to_string(sources.size()) + " sources: ") +
                joined(sources);
    return text;
}

TextTable comparison_table(const StepComparison& c) {
    TextTable rows = {{"", "step", "n", "mean loss", "std", kMargin, ""}};
    for (const auto& [name, result] : {std::pair{"baseline", &c.baseline}, std::pair{"new", &c.changed}}) {
        auto row = cells_of(*result);
        row.insert(row.begin(), name);
        rows.push_back(row);
    }
    return rows;
}

std::string comparison_line(const StepComparison& c) {
    return fmt::format("{}: ({:+.6f} by loss {:+.6f} by {} steps) / sqrt(1/{} + 1/{}) = {:.5f} is {} {:g}\n",
                       c.better ? "better" : "not shown to be better", c.by_loss, c.by_steps,
                       c.baseline.step - c.changed.step, c.baseline.loss.n, c.changed.loss.n, c.margin,
                       c.better ? "not below" : "below", kStepMargin);
}

}  // namespace

Json step_check_json(const std::vector<StepJudgedGroup>& groups) {
    Json list = Json::array();
    for (const StepJudgedGroup& judged : groups) list.push_back(group_json(judged));
    return list;
}

std::string step_check_table(const std::vector<StepJudgedGroup>& groups) {
    std::string text = plain_table(group_table(groups));
    for (const auto& [group, v] : groups) {
        text += "\n" + group.name() + ": " + verdict_of(v) + ": " + v.reason + "\n";
        if (!v.steps.empty()) text += plain_table(step_table(v));
        if (const std::string what = what_differs(group); !what.empty()) text += "  " + what + "\n";
        for (const std::string& line : excluded_lines(group)) text += "  " + line + "\n";
    }
    return terminal_text(text);
}

std::string step_check_markdown(const std::vector<StepJudgedGroup>& groups) {
    std::string text = markdown_table(group_table(groups));
    for (const auto& [group, v] : groups) {
        text += "\n### " + markdown_text(group.name()) + "\n**" + verdict_of(v) +
                "**: " + markdown_text(v.reason) + "\n";
        if (!v.steps.empty()) text += "\n" + markdown_table(step_table(v));
        if (const std::string what = what_differs(group); !what.empty())
            text += "\n" + markdown_text(what) + "\n";
        if (!group.excluded.empty()) text += "\n";
        for (const std::string& line : excluded_lines(group)) text += "- " + markdown_text(line) + "\n";
    }
    return text;
}

Json step_comparison_json(const StepComparison& c) {
    return {{"baseline", step_json(c.baseline)},
            {"new", step_json(c.changed)},
            {"by_loss", c.by_loss},
            {"by_steps", c.by_steps},
            {"margin", c.margin},
            {"better", c.better}};
}

std::string step_comparison_text(const StepComparison& c) {
    return plain_table(comparison_table(c)) + "\n" + comparison_line(c);
}

std::string step_comparison_markdown(const StepComparison& c) {
    return markdown_table(comparison_table(c)) + "\n" + comparison_line(c);
}

}  // namespace speedrun
