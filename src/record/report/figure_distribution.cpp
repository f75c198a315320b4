#include <fmt/core.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "record/judge/statistics.h"
#include "record/report/extent.h"
#include "record/report/figures.h"
#include "util/text.h"

namespace speedrun {
namespace {

constexpr double kDistributionWidth = 880, kDistributionLeft = 24, kDistributionRight = 24,
                 kDistributionTop = 30, kDistributionBottom = 54;
constexpr double kRadius = 4.5, kDotRow = 10;  // of a run's dot; from one dot to the next above it
constexpr double kNameHeight = 26, kBarHeight = 40;

struct Dot {
    double value = 0;
    std::string hint;
};

// The runs of a group along one axis.
struct Row {
    std::string name;
    std::vector<Dot> dots;
    Interval mean;
    std::optional<double> bound;  // one-sided, of the mean
};

std::string run_hint(const GroupRun& run, NumberFormat format, double value) {
    return run.path.filename().string() + ": " + number_text(format, value);
}

Row loss_row(const FigureGroup& g) {
    Row row{g.name, {}, mean_interval(g.group.final_losses()), std::nullopt};
    for (const GroupRun& r : g.group.runs)
        row.dots.push_back({r.run.last_validation->loss, run_hint(r, "{:.4f}", r.run.last_validation->loss)});
    const Summary& loss = g.verdict.loss;
    if (loss.n >= 2 && std::isfinite(loss.std)) {
        const double n = static_cast<double>(loss.n);
        row.bound = loss.mean + student_t_quantile(1 - kSignificance, n - 1) * loss.std / std::sqrt(n);
    }
    return row;
}

Row time_row(const FigureGroup& g) {
    std::vector<double> seconds = g.group.final_times_ms();
    for (double& time : seconds) time /= 1000;
    Row row{g.name, {}, mean_interval(seconds), std::nullopt};
    for (size_t i = 0; i < seconds.size(); ++i)
        row.dots.push_back({seconds[i], run_hint(g.group.runs[i], "{:.3f} s", seconds[i])});
    return row;
}

class DistributionPicture {
  public:
    DistributionPicture(std::vector<Row> rows, std::optional<double> target, std::string axis_name)
        : rows_(std::move(rows)), target_(target), axis_name_(std::move(axis_name)) {
        Extent x;
        if (target_) x.include(*target_);
        for (const Row& row : rows_) {
            for (const double value : {row.mean.low, row.mean.high, row.bound.value_or(NAN)})
                x.include(value);
            for (const Dot& dot : row.dots) x.include(dot.value);
        }
        if (x.empty()) x = {0, 1};
        const double pad = 0.05 * x.length();
        plot_ = {kDistributionLeft,
                 kDistributionTop,
                 kDistributionWidth - kDistributionLeft - kDistributionRight,
                 0,
                 make_axis(x.low - pad, x.high + pad, 9),
                 make_axis(0, 1, 2)};
        for (Row& row : rows_) plot_.height += height_of(row);
    }

    Svg draw() {
        Svg svg(kDistributionWidth, plot_.bottom() + kDistributionBottom, "distribution, " + axis_name_);
        draw_axes(svg, plot_, axis_name_, "");
        if (target_) draw_target(svg);
        double top = plot_.top;
        for (size_t i = 0; i < rows_.size(); ++i) {
            draw_row(svg, rows_[i], top, i);
            top += height_of(rows_[i]);
        }
        return svg;
    }

  private:
    double x_of(double value) const { return plot_.at(value, 0).x; }

    // How many dots of the row stand on each other where each dot has a place of its own width.
    std::map<int, std::vector<const Dot*>> stacks(const Row& row) const {
        std::map<int, std::vector<const Dot*>> stacks;
        for (const Dot& dot : row.dots)
            if (std::isfinite(dot.value))
                stacks[static_cast<int>(std::lround(x_of(dot.value) / (2 * kRadius + 1)))].push_back(&dot);
        return stacks;
    }

    double height_of(const Row& row) const {
        size_t tallest = 1;
        for (const auto& [place, dots] : stacks(row)) tallest = std::max(tallest, dots.size());
        return kNameHeight + kDotRow * static_cast<double>(tallest) + kBarHeight;
    }

    void draw_target(Svg& svg) const {
        const double x = x_of(*target_);
        svg.line({x, plot_.top - 6}, {x, plot_.bottom()}, "target");
        const bool right_half = x > kDistributionWidth / 2;
        svg.text({x + (right_half ? -6 : 6), plot_.top - 10}, right_half ? "end" : "start",
                 fmt::format("target {:g}", *target_), "targetname");
    }

    void draw_row(Svg& svg, const Row& row, double top, size_t index) const {
        const std::string look = std::to_string(index % kSeriesLooks);
        svg.text({plot_.left + 4, top + 18}, "start", row.name, "strong");
        const double ground = top + height_of(row) - kBarHeight - kRadius;
        for (const auto& [place, dots] : stacks(row))
            for (size_t k = 0; k < dots.size(); ++k)
                svg.circle({x_of(dots[k]->value), ground - kDotRow * static_cast<double>(k)}, kRadius,
                           "see-through fill" + look, dots[k]->hint);
        draw_mean(svg, row, ground + 20, look);
    }

    void draw_mean(Svg& svg, const Row& row, double y, const std::string& look) const {
        if (!std::isfinite(row.mean.value)) return;
        const double x = x_of(row.mean.value);
        if (std::isfinite(row.mean.low)) {
            svg.line({x_of(row.mean.low), y}, {x_of(row.mean.high), y}, "thick line" + look);
            for (const double end : {row.mean.low, row.mean.high})
                svg.line({x_of(end), y - 4}, {x_of(end), y + 4}, "line" + look);
        }
        const Point diamond[] = {{x, y - 7}, {x + 6, y}, {x, y + 7}, {x - 6, y}};
        svg.polygon(diamond, "fill" + look);
        if (!row.bound) return;
        const double bound = x_of(*row.bound);
        const Point mark[] = {{bound, y - 5}, {bound + 5, y + 6}, {bound - 5, y + 6}};
        svg.polygon(mark, "targetname");
    }

    std::vector<Row> rows_;
    std::optional<double> target_;
    std::string axis_name_;
    Plot plot_;
};

template <typename MakeRow>
std::vector<Row> rows_of(const std::vector<FigureGroup>& groups, MakeRow make_row) {
    std::vector<Row> rows;
    for (const FigureGroup& g : groups)
        if (!g.group.runs.empty()) rows.push_back(make_row(g));
    return rows;
}

}  // namespace

Svg final_loss_figure(const std::vector<FigureGroup>& groups) {
    return DistributionPicture(rows_of(groups, loss_row), groups.front().verdict.target,
                               "final validation loss (nats per token)")
        .draw();
}

Svg final_time_figure(const std::vector<FigureGroup>& groups) {
    return DistributionPicture(rows_of(groups, time_row), std::nullopt, "training time (s)").draw();
}

}  // namespace speedrun
