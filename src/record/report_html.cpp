#include <cmath>
#include <map>
#include <set>

#include "record/report.h"
#include "record/text_table.h"

namespace speedrun {
namespace {

constexpr const char* kPageCss = R"(
:root{color-scheme:light dark;--ground:#fff;--text:#2b2f36;--muted:#5c6470;--rule:#d8dce2;--soft:#f4f5f7;
--good:#00694e;--bad:#a3122a;--added:#e3f5ec;--removed:#fdeaec}
@media (prefers-color-scheme:dark){:root{--ground:#15181d;--text:#e3e6eb;--muted:#9aa3b0;--rule:#3a414c;--soft:#1e232a;
--good:#4cc9a0;--bad:#ff8593;--added:#12362b;--removed:#43202a}}
@page{margin:15mm}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:940px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.7em;line-height:1.2;margin:.2em 0 .6em}h2{font-size:1.2em;margin:2em 0 .5em}
p{margin:.4em 0}.muted,figcaption{color:var(--muted)}
.verdict{border-left:4px solid var(--bad);background:var(--soft);padding:8px 14px;margin:10px 0}
.verdict.yes{border-color:var(--good)}.verdict strong{color:var(--bad)}.verdict.yes strong{color:var(--good)}
figure{margin:12px 0 20px}figcaption{font-size:.9em;margin-top:4px}
.figure{width:100%;height:auto;display:block}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9em;font-variant-numeric:tabular-nums;margin:8px 0}
th,td{padding:3px 10px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
th{font-weight:600}
td.long{white-space:normal;overflow-wrap:anywhere;text-align:left}
pre{background:var(--soft);padding:10px 12px;overflow-x:auto;font:12px/1.45 ui-monospace,"DejaVu Sans Mono",monospace;
margin:8px 0}pre span{display:block;min-height:1.45em}
.added{background:var(--added)}.removed{background:var(--removed)}.gap{color:var(--muted)}
footer{margin-top:40px;color:var(--muted);font-size:.85em}
@media print{:root{color-scheme:light;--ground:#fff;--text:#000;--muted:#444;--rule:#bbb;--soft:#fff;--good:#00694e;
--bad:#a3122a;--added:#e3f5ec;--removed:#fdeaec}body{font-size:10pt}main{max-width:none;padding:0}
figure,tr,.verdict{break-inside:avoid}h2,tr:first-child{break-after:avoid}
.wide,pre{overflow:visible}pre{white-space:pre-wrap;overflow-wrap:anywhere}table{font-size:8pt}th,td{padding:2px 6px}
h2{margin-top:1.2em}}
)";

std::string style() {
    return std::string("<style>") + kPageCss + figure_css(false) + "@media (prefers-color-scheme:dark){" +
           figure_css(true) + "}\n@media print{" + figure_css(false) + "}\n</style>\n";
}

std::string element(const std::string& tag, const std::string& words, const std::string& classes = "") {
    return "<" + tag + (classes.empty() ? "" : " class=\"" + classes + "\"") + ">" + xml_text(words) + "</" +
           tag.substr(0, tag.find(' ')) + ">";
}

// The first row holds the titles. `prose`: the cells are words, not numbers.
std::string table(const TextTable& rows, bool prose = false) {
    std::string html = "<div class=\"wide\"><table>\n";
    for (size_t i = 0; i < rows.size(); ++i) {
        html += "<tr>";
        for (const auto& cell : rows[i])
            html += element(i == 0 ? "th" : "td", cell, prose && i > 0 ? "long" : "");
        html += "</tr>\n";
    }
    return html + "</table></div>\n";
}

std::string number(const char* format, double value) {
    return std::isnan(value) ? "–" : format_text(format, value);
}

std::string verdicts(const Report& report) {
    std::string html;
    for (const FigureGroup& g : report.groups) {
        html += "<div class=\"verdict" + std::string(g.verdict.record ? " yes" : "") + "\">" +
                element("strong", g.verdict.record ? "Below the target" : "Not below the target") + " " +
                xml_text(g.name + ": " + g.verdict.reason) + "</div>\n";
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

std::string figures(const Report& report) {
    std::string html;
    for (const auto& [name, svg] : report_figures(report))
        html += "<figure>\n" + svg.in_page() + element("figcaption", caption_of(name)) + "\n</figure>\n";
    return html;
}

std::string comparison(const Report& report) {
    if (!report.comparison) return "";
    std::string html = "<h2>Comparison</h2>\n" + table(comparison_table(*report.comparison)) +
                       element("p", comparison_gain(*report.comparison)) + "\n";
    for (const auto& warning : report.comparison->warnings)
        html += element("p", "Warning: " + warning) + "\n";
    return html;
}

std::string difference(const Report& report) {
    if (report.groups.size() < 2) return "";
    std::string html = "<h2>What differs in what was run</h2>\n";
    if (report.source_difference.empty()) return html + "<p>Nothing.</p>\n";
    html += "<pre>";
    for (const DiffLine& line : report.source_difference) {
        using Kind = DiffLine::Kind;
        switch (line.kind) {
            case Kind::same:
                html += element("span", "  " + line.text);
                break;
            case Kind::removed:
                html += element("span", "- " + line.text, "removed");
                break;
            case Kind::added:
                html += element("span", "+ " + line.text, "added");
                break;
            case Kind::gap:
                html += element("span", "  ...", "gap");
        }
    }
    return html + "</pre>\n";
}

std::string groups(const Report& report) {
    TextTable rows = {
        {"group", "runs", "steps", "mean loss", "std", "min", "max", "p", "mean time (ms)", "std"}};
    for (const FigureGroup& g : report.groups) {
        const Verdict& v = g.verdict;
        rows.push_back({g.name, std::to_string(v.loss.n), std::to_string(g.group.steps),
                        number("%.6f", v.loss.mean), number("%.6f", v.loss.std), number("%.4f", v.loss.min),
                        number("%.4f", v.loss.max), number("%.6g", v.test.p), number("%.1f", v.time_ms.mean),
                        number("%.1f", v.time_ms.std)});
    }
    return "<h2>Statistics</h2>\n" + table(rows);
}

std::string runs(const Report& report) {
    std::string html = "<h2>Runs</h2>\n";
    for (const FigureGroup& g : report.groups) {
        TextTable rows = {{g.name, "seed", "loss", "time (ms)", "step (ms)", "stalls", "lost (ms)"}};
        for (size_t i = 0; i < g.group.runs.size(); ++i) {
            const Run& run = g.group.runs[i].run;
            const Stalls& stalls = g.stalls[i];
            const bool timed = !std::isnan(stalls.median_step_ms);
            rows.push_back(
                {g.group.runs[i].path.filename().string(), run.seed ? std::to_string(*run.seed) : "–",
                 number("%.4f", run.last_validation->loss),
                 number("%.0f", run.last_validation->train_time_ms), number("%.2f", run.step_avg_ms),
                 timed ? std::to_string(stalls.hiccups.size()) : "–",
                 timed ? number("%.0f", stalls.lost_ms) : "–"});
        }
        html += table(rows);
    }
    return html;
}

std::string excluded(const Report& report) {
    TextTable rows = {{"Left out", "why"}};
    for (const FigureGroup& g : report.groups)
        for (const Excluded& e : g.group.excluded) rows.push_back({e.path.string(), e.reason});
    return rows.size() == 1 ? "" : "<h2>Left out</h2>\n" + table(rows, true);
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

std::string environment(const Report& report) {
    std::string html = "<h2>Where it ran</h2>\n";
    for (const FigureGroup& g : report.groups) {
        TextTable rows = {{g.name, ""}};
        for (const auto& [name, values] : environment_of(g)) {
            std::string joined;
            for (const auto& value : values) joined += (joined.empty() ? "" : "; ") + value;
            rows.push_back({name, joined});
        }
        html += table(rows, true);
    }
    return html;
}

std::string warnings(const Report& report) {
    if (report.warnings.empty()) return "";
    std::string html = "<h2>About the logs</h2>\n<ul>\n";
    for (const auto& warning : report.warnings) html += element("li", warning) + "\n";
    return html + "</ul>\n";
}

}  // namespace

std::string report_html(const Report& report) {
    return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n" +
           element("title", report.title) + "\n" + style() + "</head>\n<body>\n<main>\n" +
           element("h1", report.title) + "\n" + verdicts(report) + comparison(report) + figures(report) +
           groups(report) + runs(report) + excluded(report) + difference(report) + environment(report) +
           warnings(report) + "<footer>" + xml_text(report.made_by) +
           "</footer>\n</main>\n</body>\n</html>\n";
}

}  // namespace speedrun
