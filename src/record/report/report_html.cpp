#include <fmt/core.h>
#include <cmath>
#include <map>
#include <set>

#include "record/report/html_page.h"
#include "record/report/report.h"
#include "util/text.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

std::string formatted(NumberFormat format, double value) {
    return number_text(format, value, "–");
}

std::string verdicts(const RunReport& report) {
    std::string html;
    for (const FigureGroup& g : report.groups) {
        html += "<div class=\"verdict" + std::string(g.verdict.below_target ? " yes" : "") + "\">" +
                html_element("strong", g.verdict.below_target ? "Below the target" : "Not below the target") +
                " " + xml_text(g.name + ": " + g.verdict.reason) + "</div>\n";
    }
    return html;
}

std::string caption_of(const std::string& name) {
    static const std::map<std::string, std::string> captions = {
        {"final_losses",
         "Final validation loss of each run. Diamond and bar: mean and its 95 % confidence interval. "
         "Triangle: "
         "the bound that the one-sided t-test at p = 0.01 puts to the mean; left of the target, the group is "
         "below it."},
        {"loss_over_steps",
         "Validation loss of each run over steps; faint, where it is logged, the training loss of one. The "
         "fall at "
         "the beginning is above the picture."},
        {"loss_over_time", "The same over training time, validations not counted."},
        {"final_times", "Training time of each run, with mean and 95 % confidence interval."},
        {"step_times",
         "Time of a step: mean and range of the steps without the fastest and the slowest tenth. Below, each "
         "run: red, steps slower than 3 times the local median; grey, slow steps that come periodically."}};
    return captions.at(name);
}

std::string figures(const RunReport& report) {
    std::string html;
    for (const auto& [name, svg] : report_figures(report)) html += html_figure(svg, caption_of(name));
    return html;
}

std::string comparison(const RunReport& report) {
    if (!report.comparison) return "";
    std::string html = "<h2>Comparison</h2>\n" + html_table(comparison_table(*report.comparison)) +
                       html_element("p", comparison_gain(*report.comparison)) + "\n";
    for (const auto& warning : report.comparison->warnings)
        html += html_element("p", "Warning: " + warning) + "\n";
    return html;
}

std::string difference(const RunReport& report) {
    if (report.groups.size() < 2) return "";
    std::string html = "<h2>What differs in what was run</h2>\n";
    if (report.source_difference.empty()) return html + "<p>Nothing.</p>\n";
    html += "<pre>";
    for (const DiffLine& line : report.source_difference) {
        switch (line.kind) {
            case DiffLine::Kind::same:
                html += html_element("span", "  " + line.text);
                break;
            case DiffLine::Kind::removed:
                html += html_element("span", "- " + line.text, "removed");
                break;
            case DiffLine::Kind::added:
                html += html_element("span", "+ " + line.text, "added");
                break;
            case DiffLine::Kind::gap:
                html += html_element("span", "  ...", "gap");
        }
    }
    return html + "</pre>\n";
}

std::string groups(const RunReport& report) {
    TextTable rows = {
        {"group", "runs", "steps", "mean loss", "std", "min", "max", "p", "mean time (ms)", "std"}};
    for (const FigureGroup& g : report.groups) {
        const Verdict& v = g.verdict;
        rows.push_back({g.name, std::to_string(v.loss.n), std::to_string(g.group.steps),
                        formatted("{:.6f}", v.loss.mean), formatted("{:.6f}", v.loss.std),
                        formatted("{:.4f}", v.loss.min), formatted("{:.4f}", v.loss.max),
                        formatted("{:.6g}", v.test.p), formatted("{:.1f}", v.time_ms.mean),
                        formatted("{:.1f}", v.time_ms.std)});
    }
    return "<h2>Statistics</h2>\n" + html_table(rows);
}

std::string runs(const RunReport& report) {
    std::string html = "<h2>Runs</h2>\n";
    for (const FigureGroup& g : report.groups) {
        TextTable rows = {{g.name, "seed", "loss", "time (ms)", "step (ms)", "stalls", "lost (ms)"}};
        for (size_t i = 0; i < g.group.runs.size(); ++i) {
            const Run& run = g.group.runs[i].run;
            const Stalls& stalls = g.stalls[i];
            const bool timed = !std::isnan(stalls.median_step_ms);
            rows.push_back(
                {g.group.runs[i].path.filename().string(), run.seed ? std::to_string(*run.seed) : "–",
                 formatted("{:.4f}", run.last_validation->loss),
                 formatted("{:.0f}", run.last_validation->train_time_ms),
                 formatted("{:.2f}", run.step_avg_ms), timed ? std::to_string(stalls.hiccups.size()) : "–",
                 timed ? formatted("{:.0f}", stalls.lost_ms) : "–"});
        }
        html += html_table(rows);
    }
    return html;
}

std::string excluded(const RunReport& report) {
    TextTable rows = {{"Left out", "why"}};
    for (const FigureGroup& g : report.groups)
        for (const Excluded& e : g.group.excluded) rows.push_back({e.path.string(), e.reason});
    return rows.size() == 1 ? "" : "<h2>Left out</h2>\n" + html_table(rows, true);
}

// Each value that some run of the group was logged with.
std::map<std::string, std::set<std::string>> environment_of(const FigureGroup& group) {
    std::map<std::string, std::set<std::string>> values;
    const auto add = [&](const std::string& name, const std::string& value) {
        if (!value.empty()) values[name].insert(value);
    };
    for (const GroupRun& r : group.group.runs) {
        const RunHeader& header = r.run.header;
        add("hardware", header.hardware.text());
        add("driver", header.hardware.driver);
        add("driver's CUDA", header.hardware.cuda);
        add("source", header.source_hash);
        for (const auto& [name, version] : header.versions) add(name, version);
        for (const char* name : {"commit", "build", "world size", "threads"}) add(name, header.field(name));
        for (const DataShard& shard : r.run.data) add(shard.path, "sha256 " + shard.sha256);
    }
    return values;
}

std::string environment(const RunReport& report) {
    std::string html = "<h2>Where it ran</h2>\n";
    for (const FigureGroup& g : report.groups) {
        TextTable rows = {{g.name, ""}};
        for (const auto& [name, values] : environment_of(g)) rows.push_back({name, joined(values, "; ")});
        html += html_table(rows, true);
    }
    return html;
}

std::string warnings(const RunReport& report) {
    if (report.warnings.empty()) return "";
    std::string html = "<h2>About the logs</h2>\n<ul>\n";
    for (const auto& warning : report.warnings) html += html_element("li", warning) + "\n";
    return html + "</ul>\n";
}

}  // namespace

std::string report_html(const RunReport& report) {
    return html_page(report.title,
                     verdicts(report) + comparison(report) + figures(report) + groups(report) + runs(report) +
                         excluded(report) + difference(report) + environment(report) + warnings(report),
                     report.made_by);
}

}  // namespace speedrun
