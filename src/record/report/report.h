#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "record/judge/comparison.h"
#include "record/judge/groups.h"
#include "record/log/source_diff.h"
#include "record/report/figures.h"

namespace speedrun {

// What a reader of a record or a comparison is shown.
struct RunReport {
    std::string title, made_by;
    std::vector<FigureGroup> groups;       // the baseline first
    std::optional<Comparison> comparison;  // of the first two
    // Of the programs or configs that the first two groups ran.
    std::vector<DiffLine> source_difference;
    std::vector<std::string> warnings;
};

struct ReportOptions {
    std::string title, made_by;
    double target = kShortTarget;
};

// Needs the runs' clocks and validations. With a baseline, that is compared with the first group of `runs`.
// UserError where there is no complete run, or more groups than can be told apart (kSeriesLooks).
RunReport make_report(const Collection& runs, const std::optional<Collection>& baseline,
                      const ReportOptions& options);

// Name and picture, such as "loss_over_steps"; those for which the logs have no data are missing.
NamedFigures report_figures(const RunReport& report);

// One page that needs nothing else: for a screen, light or dark, and for paper.
std::string report_html(const RunReport& report);

}  // namespace speedrun
