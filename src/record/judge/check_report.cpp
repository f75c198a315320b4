#include "record/judge/check_report.h"

#include <fmt/core.h>
#include <cmath>

#include "record/judge/group_text.h"
#include "record/log/parse_report.h"
#include "record/log/run_json.h"
#include "util/json_document.h"
#include "util/text.h"
#include "util/text_table.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

Json runs_json(const RunGroup& group) {
    Json list = Json::array();
    for (const GroupRun& r : group.runs)
        list.push_back({{"path", r.path.string()},
                        {"run", r.index},
                        {"val_loss", finite_or_null(r.run.last_validation->loss)},
                        {"train_time_ms", finite_or_null(r.run.last_validation->train_time_ms)}});
    return list;
}

std::vector<std::string> group_row(const JudgedGroup& judged) {
    const auto& [group, v] = judged;
    return {group.name(),
            std::to_string(group.steps),
            std::to_string(v.loss.n),
            number_text("{:.6f}", v.loss.mean),
            number_text("{:.6f}", v.loss.std),
            number_text("{:.4f}", v.loss.min),
            number_text("{:.4f}", v.loss.max),
            number_text("{:.6g}", v.test.p),
            number_text("{:.1f}", v.time_ms.mean),
            number_text("{:.1f}", v.time_ms.std),
            v.text()};
}

TextTable group_table(const std::vector<JudgedGroup>& groups) {
    TextTable rows = {
        {"folder", "steps", "n", "mean loss", "std", "min", "max", "p", "mean ms", "std", "verdict"}};
    for (const JudgedGroup& judged : groups) rows.push_back(group_row(judged));
    return rows;
}

TextTable run_table(const RunGroup& group) {
    TextTable rows = {{"run", "val_loss", "train_time ms"}};
    for (const GroupRun& r : group.runs)
        rows.push_back({run_name(r.path.filename(), r.index),
                        number_text("{:.4f}", r.run.last_validation->loss),
                        number_text("{:.0f}", r.run.last_validation->train_time_ms)});
    return rows;
}

std::string what_it_is(const RunGroup& group) {
    std::string text;
    if (!group.hardware.empty()) text += "hardware " + group.hardware;
    if (!group.source_hash.empty()) text += (text.empty() ? "" : ", ") + ("source " + group.source_hash);
    return text;
}

}  // namespace

std::vector<JudgedGroup> judge_all(const Collection& runs, double target, const RunGroup* baseline,
                                   double significance) {
    std::vector<JudgedGroup> judged;
    for (const RunGroup& group : runs.groups)
        judged.push_back({group, judge(group, target, baseline, significance)});
    return judged;
}

Json check_json(const std::vector<JudgedGroup>& groups) {
    Json list = Json::array();
    for (const auto& [group, v] : groups) {
        list.push_back({{"path", group.path.string()},
                        {"n", v.loss.n},
                        {"steps", group.steps},
                        {"mean_loss", finite_or_null(v.loss.mean)},
                        {"std_loss", finite_or_null(v.loss.std)},
                        {"min_loss", finite_or_null(v.loss.min)},
                        {"max_loss", finite_or_null(v.loss.max)},
                        {"t", finite_or_null(v.test.t)},
                        {"p_value", finite_or_null(v.test.p)},
                        {"mean_time_ms", finite_or_null(v.time_ms.mean)},
                        {"std_time_ms", finite_or_null(v.time_ms.std)},
                        {"min_time_ms", finite_or_null(v.time_ms.min)},
                        {"max_time_ms", finite_or_null(v.time_ms.max)},
                        {"target", v.target},
                        {"verdict", v.text()},
                        {"reason", v.reason},
                        {"source_hash", group.source_hash},
                        {"hardware", group.hardware},
                        {"runs", runs_json(group)},
                        {"excluded", excluded_json(group)}});
    }
    return list;
}

std::string check_table(const std::vector<JudgedGroup>& groups) {
    std::string text = plain_table(group_table(groups)) + "\n";
    for (const auto& [group, v] : groups) {
        text += group.name() + ", " + std::to_string(group.steps) + " steps: " + v.text() + ": " + v.reason +
                "\n";
        if (const std::string what = what_it_is(group); !what.empty()) text += "  " + what + "\n";
        for (const std::string& line : excluded_lines(group)) text += "  " + line + "\n";
    }
    return terminal_text(text);
}

std::string check_markdown(const std::vector<JudgedGroup>& groups) {
    std::string text = markdown_table(group_table(groups));
    for (const auto& [group, v] : groups) {
        text += "\n### " + markdown_text(group.name()) + "\n**" + v.text() + "**: " + v.reason +
                " (one-sided one-sample t-test, n = " + std::to_string(v.loss.n) + ").\n";
        if (const std::string what = what_it_is(group); !what.empty())
            text += "\n" + markdown_text(what) + "\n";
        if (!group.runs.empty()) text += "\n" + markdown_table(run_table(group));
        if (!group.excluded.empty()) text += "\n";
        for (const std::string& line : excluded_lines(group)) text += "- " + markdown_text(line) + "\n";
    }
    return text;
}

std::vector<std::string> collection_warnings(const Collection& runs) {
    std::vector<std::string> list = runs.problems;
    list.insert(list.end(), runs.remarks.begin(), runs.remarks.end());
    for (std::string& line : list) line = terminal_text(line);
    return list;
}

}  // namespace speedrun
