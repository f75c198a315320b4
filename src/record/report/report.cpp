#include "record/report/report.h"

#include <algorithm>
#include <map>

#include "record/judge/check_report.h"
#include "util/error.h"

namespace speedrun {
namespace {

// Adds the groups of `runs` that hold a complete run.
void add_groups(const Collection& runs, double target, std::vector<FigureGroup>& groups) {
    for (const RunGroup& group : runs.groups) {
        if (group.runs.empty()) continue;
        FigureGroup& added = groups.emplace_back();
        added.name = group.path.filename().string();
        added.group = group;
        added.verdict = judge(group, target);
        for (const GroupRun& run : group.runs) added.stalls.push_back(find_stalls(run.run));
    }
}

// Groups of one folder differ in their steps, or else are numbered.
void tell_apart(std::vector<FigureGroup>& groups) {
    const auto count = [&] {
        std::map<std::string, int> names;
        for (const FigureGroup& g : groups) ++names[g.name];
        return names;
    };
    for (auto names = count(); FigureGroup & g : groups)
        if (names[g.name] > 1) g.name += ", " + std::to_string(g.group.steps) + " steps";
    std::map<std::string, int> seen;
    for (auto names = count(); FigureGroup & g : groups)
        if (names[g.name] > 1) g.name += " (" + std::to_string(++seen[g.name]) + ")";
}

std::string source_of(const FigureGroup& group) {
    return read_log_source(group.group.runs.front().path);
}

void require_groups(const std::vector<FigureGroup>& groups) {
    if (groups.empty()) throw UserError("no complete run: nothing to report");
    if (groups.size() > kSeriesLooks)
        throw UserError("the runs are of " + std::to_string(groups.size()) +
                        " kinds (folder, steps, source, hardware); one report shows at most " +
                        std::to_string(kSeriesLooks) + ": name fewer folders");
}

void append(std::vector<std::string>& list, const std::vector<std::string>& more) {
    list.insert(list.end(), more.begin(), more.end());
}

}  // namespace

RunReport make_report(const Collection& runs, const std::optional<Collection>& baseline,
                      const ReportOptions& options) {
    RunReport report;
    report.made_by = options.made_by;
    if (baseline) {
        add_groups(*baseline, options.target, report.groups);
        if (report.groups.size() != 1)
            throw UserError("the baseline must be runs of one kind; it has complete runs of " +
                            std::to_string(report.groups.size()));
        append(report.warnings, collection_warnings(*baseline));
    }
    add_groups(runs, options.target, report.groups);
    append(report.warnings, collection_warnings(runs));
    require_groups(report.groups);
    tell_apart(report.groups);
    report.title = options.title.empty() ? report.groups.back().name : options.title;
    if (report.groups.size() < 2) return report;
    report.source_difference = source_diff(source_of(report.groups[0]), source_of(report.groups[1]));
    if (baseline) report.comparison = compare_groups(report.groups[0].group, report.groups[1].group);
    return report;
}

NamedFigures report_figures(const RunReport& report) {
    std::vector<std::pair<std::string, Svg>> figures;
    figures.emplace_back("final_losses", final_loss_figure(report.groups));
    figures.emplace_back("loss_over_steps", loss_figure(report.groups, Over::steps));
    if (has_times(report.groups)) {
        figures.emplace_back("loss_over_time", loss_figure(report.groups, Over::time));
        figures.emplace_back("final_times", final_time_figure(report.groups));
    }
    if (has_step_times(report.groups)) figures.emplace_back("step_times", step_time_figure(report.groups));
    return figures;
}

}  // namespace speedrun
