#include "record/log/parse_report.h"

#include <fmt/core.h>
#include <cmath>

#include "record/log/stalls.h"
#include "util/text.h"
#include "util/text_table.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

constexpr size_t kShownStalls = 10;

std::string outcome(const Run& run) {
    std::string text = run.complete() ? "complete: " : run.incomplete_reason() + ": ";
    text += run.last_validation ? "val_loss " + number_text("{:.6g}", run.last_validation->loss)
                                : "no validation";
    return text + ", step " + std::to_string(run.final_step) + ", train_time " +
           number_text("{:.0f}", run.train_time_ms) + " ms, step_avg " +
           number_text("{:.2f}", run.step_avg_ms) + " ms\n";
}

std::string steps_text(const std::vector<Stall>& stalls) {
    std::string text;
    for (size_t i = 0; i < std::min(stalls.size(), kShownStalls); ++i)
        text += (i > 0 ? ", " : " at step ") + std::to_string(stalls[i].step) +
                fmt::format(" ({:.0f} ms, usually {:.0f})", stalls[i].ms, stalls[i].usual_ms);
    return stalls.size() > kShownStalls ? text + ", ..." : text;
}

std::string stalls_text(const Run& run) {
    const Stalls stalls = find_stalls(run);
    if (std::isnan(stalls.median_step_ms)) return "";
    std::string text = "  steps: median " + fmt::format("{:.2f} ms", stalls.median_step_ms) +
                       "; stalls: " + std::to_string(stalls.hiccups.size());
    if (!stalls.hiccups.empty())
        text += fmt::format(", {:.0f} ms lost, {:.0f} ms without", stalls.lost_ms, stalls.time_without_ms) +
                steps_text(stalls.hiccups);
    if (stalls.period)
        text += fmt::format("\n  slow every {} steps: {}, {:.0f} ms more than the others", *stalls.period,
                            stalls.periodic.size(), stalls.periodic_ms);
    return text + "\n";
}

std::string header_text(const RunHeader& header) {
    std::string text;
    if (!header.hardware.text().empty()) text += "  hardware: " + header.hardware.text() + "\n";
    if (!header.hardware.driver.empty()) text += "  driver: " + header.hardware.driver + "\n";
    for (const auto& [name, version] : header.versions) text += "  " + name + ": " + version + "\n";
    if (!header.source_hash.empty()) text += "  source: " + header.source_hash + "\n";
    return text;
}

std::string validations_text(const Run& run) {
    TextTable rows = {{"  step", "val_loss", "train_time ms"}};
    for (const Validation& v : run.validations)
        rows.push_back({"  " + std::to_string(v.step), number_text("{:.6g}", v.loss),
                        number_text("{:.0f}", v.train_time_ms)});
    return run.validations.empty() ? "" : plain_table(rows);
}

}  // namespace

std::string no_log_reason(const RunLog& log) {
    if (log.bytes == 0) return "empty file";
    if (log.binary) return "a binary file";
    return log.runs.empty() ? "no step lines" : "";
}

std::string run_text(const RunLog& log, size_t index) {
    const Run& run = log.runs.at(index);
    std::string text = log.path.string();
    if (log.runs.size() > 1)
        text += ", run " + std::to_string(index + 1) + " of " + std::to_string(log.runs.size());
    if (run.seed) text += ", seed " + std::to_string(*run.seed);
    text += ": " + outcome(run) + header_text(run.header) + stalls_text(run) + validations_text(run);
    return terminal_text(text);
}

std::vector<std::string> log_remarks(const RunLog& log) {
    std::vector<std::string> remarks;
    const std::string file = log.path.string() + ": ";
    if (const auto reason = no_log_reason(log); !reason.empty())
        remarks.push_back(file + "not a log: " + reason);
    if (log.unfinished_line)
        remarks.push_back(file + "the last line is unfinished: still being written, or cut");
    if (log.lines_in_source > 0)
        remarks.push_back(file + std::to_string(log.lines_in_source) +
                          " step lines are quoted in the source and belong to no run");
    if (log.repeated_validations > 0)
        remarks.push_back(file + std::to_string(log.repeated_validations) +
                          " validation lines stand further up already, and are left out");
    if (log.unplaced_count > 0)
        remarks.push_back(file + std::to_string(log.unplaced_count) +
                          " lines look like step lines and could not be read:");
    for (const UnplacedLine& line : log.unplaced)
        remarks.push_back("  line " + std::to_string(line.number) + ": " + line.text);
    for (std::string& remark : remarks) remark = terminal_text(remark);
    return remarks;
}

}  // namespace speedrun
