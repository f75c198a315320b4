#include <fmt/core.h>
#include <cmath>

#include "record/judge/comparison.h"
#include "record/log/run_json.h"
#include "util/json_document.h"
#include "util/text.h"
#include "util/text_table.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

Json interval_json(const Interval& i) {
    return {{"difference", finite_or_null(i.value)},
            {"low", finite_or_null(i.low)},
            {"high", finite_or_null(i.high)},
            {"confidence", i.confidence},
            {"degrees", finite_or_null(i.degrees)}};
}

Json side_json(const Side& side) {
    return {{"path", side.group.path.string()},
            {"n", side.time_ms.n},
            {"steps", side.group.steps},
            {"mean_loss", finite_or_null(side.loss.mean)},
            {"std_loss", finite_or_null(side.loss.std)},
            {"mean_time_ms", finite_or_null(side.time_ms.mean)},
            {"std_time_ms", finite_or_null(side.time_ms.std)},
            {"mean_step_ms", finite_or_null(side.step_ms.mean)},
            {"hardware", side.group.hardware},
            {"source_hash", side.group.source_hash}};
}

std::string mean_std(const Summary& s, NumberFormat format) {
    if (std::isnan(s.mean)) return "-";
    const std::string mean = number_text(format, s.mean);
    return std::isnan(s.std) ? mean : mean + " +- " + number_text(format, s.std);
}

std::string bounds(const Interval& i, NumberFormat format) {
    if (std::isnan(i.low)) return "-";
    return "[" + fmt::format(fmt::runtime(format), i.low) + ", " + fmt::format(fmt::runtime(format), i.high) +
           "]";
}

std::string difference(const Interval& i, NumberFormat format) {
    return number_text(format, i.value);
}

std::string gain_line(const Comparison& c) {
    const std::string gain = comparison_gain(c);
    return gain.empty() ? "" : gain + "\n";
}

std::string notes(const Comparison& c, const char* indent) {
    std::string text;
    if (c.interleaved == true) text += indent + std::string("the runs took turns\n");
    for (const std::string& warning : c.warnings)
        text += indent + ("warning: " + (*indent != '\0' ? markdown_text(warning) : warning)) + "\n";
    return text;
}

}  // namespace

TextTable comparison_table(const Comparison& c) {
    const auto confidence = fmt::format("{:g} %", 100 * c.time_ms.confidence);
    const Side &a = c.baseline, &b = c.changed;
    TextTable rows = {{"", "baseline", "new", "difference", confidence}};
    rows.push_back({"runs", std::to_string(a.time_ms.n), std::to_string(b.time_ms.n), "", ""});
    rows.push_back({"time, ms", mean_std(a.time_ms, "{:.1f}"), mean_std(b.time_ms, "{:.1f}"),
                    difference(c.time_ms, "{:+.1f}"), bounds(c.time_ms, "{:+.1f}")});
    if (c.paired_time)
        rows.push_back({"time of pairs, ms", "", "", difference(*c.paired_time, "{:+.1f}"),
                        bounds(*c.paired_time, "{:+.1f}")});
    rows.push_back({"steps", std::to_string(a.group.steps), std::to_string(b.group.steps),
                    fmt::format("{:+}", c.steps), ""});
    rows.push_back({"step, ms", mean_std(a.step_ms, "{:.3f}"), mean_std(b.step_ms, "{:.3f}"),
                    difference(c.step_ms, "{:+.3f}"), bounds(c.step_ms, "{:+.3f}")});
    rows.push_back({"loss", mean_std(a.loss, "{:.6f}"), mean_std(b.loss, "{:.6f}"),
                    difference(c.loss, "{:+.6f}"), bounds(c.loss, "{:+.6f}")});
    return rows;
}

std::string comparison_gain(const Comparison& c) {
    if (std::isnan(c.time_ms.value)) return "";
    const double total = c.time_ms.value;
    const auto part = [&](double ms) {
        const std::string text = fmt::format("{:+.1f} ms", ms);
        return total == 0 ? text : text + fmt::format(" ({:.1f} %)", 100 * ms / total);
    };
    return fmt::format("time: {:+.1f} ms ({:+.2f} %) = ", total, 100 * total / c.baseline.time_ms.mean) +
           part(c.by_steps_ms) + " by the number of steps, " + part(c.by_step_time_ms) + " by their speed";
}

Json comparison_json(const Comparison& c) {
    Json json{{"baseline", side_json(c.baseline)},
              {"new", side_json(c.changed)},
              {"time_ms", interval_json(c.time_ms)},
              {"paired_time_ms", c.paired_time ? interval_json(*c.paired_time) : Json(nullptr)},
              {"steps", {{"difference", c.steps}}},
              {"step_ms", interval_json(c.step_ms)},
              {"loss", interval_json(c.loss)},
              {"gain",
               {{"by_steps_ms", finite_or_null(c.by_steps_ms)},
                {"by_step_time_ms", finite_or_null(c.by_step_time_ms)}}},
              {"interleaved", c.interleaved ? Json(*c.interleaved) : Json(nullptr)},
              {"warnings", c.warnings}};
    return json;
}

std::string comparison_text(const Comparison& c) {
    return terminal_text("baseline: " + c.baseline.group.path.string() +
                         "\nnew:      " + c.changed.group.path.string() + "\n\n" +
                         plain_table(comparison_table(c)) + "\n" + gain_line(c) + notes(c, ""));
}

std::string comparison_markdown(const Comparison& c) {
    return "Baseline: " + markdown_text(c.baseline.group.path.string()) +
           "; new: " + markdown_text(c.changed.group.path.string()) + "\n\n" +
           markdown_table(comparison_table(c)) + "\n" + gain_line(c) + "\n" + notes(c, "- ");
}

}  // namespace speedrun
