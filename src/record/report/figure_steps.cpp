#include <fmt/core.h>
#include <algorithm>
#include <numeric>
#include <span>

#include "record/report/extent.h"
#include "record/report/figures.h"

namespace speedrun {
namespace {

constexpr double kStepsWidth = 880, kStepsLeft = 66, kStepsRight = 150, kStepsTop = 12, kLegendRow = 19,
                 kTimesHeight = 210;
constexpr double kAxisHeight = 54, kStepsBottom = 12;
constexpr size_t kBins = 240;  // along the steps

// The steps of one bin, over all runs of a group.
struct Bin {
    double step = 0;                     // middle
    double low = 0, mean = 0, high = 0;  // ms, of the steps without the fastest and the slowest 10 %
};

Bin make_bin(double step, std::vector<double>& ms) {
    std::ranges::sort(ms);
    const size_t left_out = ms.size() / 10;
    const std::span middle = std::span(ms).subspan(left_out, ms.size() - 2 * left_out);
    const double sum = std::accumulate(middle.begin(), middle.end(), 0.0);
    return {step, middle.front(), sum / static_cast<double>(middle.size()), middle.back()};
}

std::vector<Bin> bins_of(const RunGroup& group, int64_t steps) {
    // Even: in many records every other step does more.
    const size_t width = 2 * (static_cast<size_t>(steps) / (2 * kBins) + 1);
    std::vector<std::vector<double>> values(static_cast<size_t>(steps) / width + 1);
    for (const GroupRun& r : group.runs)
        for (const StepTime& time : step_times(r.run))
            if (time.step >= 0 && time.step <= steps)
                values[static_cast<size_t>(time.step) / width].push_back(time.ms);
    std::vector<Bin> bins;
    for (size_t i = 0; i < values.size(); ++i)
        if (!values[i].empty())
            bins.push_back(make_bin((static_cast<double>(i) + 0.5) * static_cast<double>(width), values[i]));
    return bins;
}

int64_t last_step(const std::vector<FigureGroup>& groups) {
    int64_t last = 1;
    for (const FigureGroup& g : groups)
        for (const GroupRun& r : g.group.runs) last = std::max(last, r.run.final_step);
    return last;
}

bool has_steps(const GroupRun& run) {
    return !step_times(run.run).empty();
}

class StepPicture {
  public:
    explicit StepPicture(const std::vector<FigureGroup>& groups)
        : groups_(groups), last_step_(last_step(groups)) {
        size_t rows = 0;
        Extent y;
        y.include(0);
        for (const FigureGroup& g : groups) {
            rows += static_cast<size_t>(std::ranges::count_if(g.group.runs, has_steps));
            bins_.push_back(bins_of(g.group, last_step_));
            // Where bins hold few steps the range may go far; the means are what is to be seen.
            for (const Bin& bin : bins_.back()) y.include(1.5 * bin.mean);
        }
        row_height_ = std::clamp(320.0 / static_cast<double>(std::max<size_t>(rows, 1)), 3.0, 16.0);
        strips_height_ = row_height_ * static_cast<double>(rows);
        if (y.length() == 0) y.high = 1;
        times_ = {kStepsLeft,
                  kStepsTop + legend_height(),
                  kStepsWidth - kStepsLeft - kStepsRight,
                  kTimesHeight,
                  make_axis(0, static_cast<double>(last_step_), 11),
                  make_axis(0, y.high, 7)};
    }

    Svg draw() {
        Svg svg(kStepsWidth, strips_top() + strips_height_ + kStepsBottom, "step times and stalls");
        draw_axes(svg, times_, "step", "time of a step (ms)");
        svg.begin_clip({times_.left, times_.top}, times_.width, times_.height);
        for (size_t i = 0; i < groups_.size(); ++i) draw_times(svg, i);
        svg.end_clip();
        draw_names(svg);
        draw_strips(svg);
        return svg;
    }

  private:
    double strips_top() const { return times_.bottom() + kAxisHeight; }

    void draw_times(Svg& svg, size_t group) const {
        const std::string look = std::to_string(group % kSeriesLooks);
        std::vector<Point> band, means;
        for (const Bin& bin : bins_[group]) {
            band.push_back(times_.at(bin.step, bin.high));
            means.push_back(times_.at(bin.step, bin.mean));
        }
        for (auto bin = bins_[group].rbegin(); bin != bins_[group].rend(); ++bin)
            band.push_back(times_.at(bin->step, bin->low));
        svg.polygon(band, "band fill" + look);
        svg.polyline(means, "line" + look);
    }

    double legend_height() const {
        return groups_.size() > 1 ? kLegendRow * static_cast<double>(groups_.size()) + 6 : 0;
    }

    // Above the picture, where names have room; one group needs none.
    void draw_names(Svg& svg) const {
        for (size_t i = 0; groups_.size() > 1 && i < groups_.size(); ++i) {
            const double y = kStepsTop + 10 + kLegendRow * static_cast<double>(i);
            svg.rectangle({times_.left, y - 9}, 10, 10, "fill" + std::to_string(i % kSeriesLooks));
            svg.text({times_.left + 16, y}, "start", groups_[i].name);
        }
    }

    void draw_strips(Svg& svg) const {
        if (strips_height_ > 0)
            svg.text_upwards({times_.left - 34, strips_top() + strips_height_ / 2},
                             strips_height_ > 40 ? "runs" : "");
        double y = strips_top();
        for (size_t i = 0; i < groups_.size(); ++i) {
            for (size_t k = 0; k < groups_[i].group.runs.size(); ++k) {
                if (!has_steps(groups_[i].group.runs[k])) continue;
                draw_strip(svg, groups_[i].group.runs[k], groups_[i].stalls[k], y, i);
                y += row_height_;
            }
        }
    }

    void draw_strip(Svg& svg, const GroupRun& run, const Stalls& stalls, double y, size_t group) const {
        const double height = row_height_ > 5 ? row_height_ - 2 : row_height_ - 1;
        const std::string name = run.path.filename().string();
        svg.rectangle({times_.left, y}, x_of(run.run.final_step) - times_.left, height, "row", name);
        svg.rectangle({times_.left - 12, y}, 8, height, "fill" + std::to_string(group % kSeriesLooks), name);
        for (const Stall& stall : stalls.periodic) mark(svg, stall, y, height, "fill4", 1);
        for (const Stall& stall : stalls.hiccups) mark(svg, stall, y, height, "stall", 2.5);
        if (row_height_ < 11) return;
        const std::string words = stalls.hiccups.empty()
                                      ? "no stall"
                                      : fmt::format("{} stall{}, {:.0f} ms", stalls.hiccups.size(),
                                                    stalls.hiccups.size() == 1 ? "" : "s", stalls.lost_ms);
        svg.text({times_.right() + 12, y + height - 2.5}, "start", words, "small muted");
    }

    void mark(Svg& svg, const Stall& stall, double y, double height, const char* look, double width) const {
        svg.rectangle(
            {x_of(stall.step) - width / 2, y}, width, height, look,
            fmt::format("step {}: {:.0f} ms, usually {:.0f}", stall.step, stall.ms, stall.usual_ms));
    }

    double x_of(int64_t step) const { return times_.at(static_cast<double>(step), 0).x; }

    const std::vector<FigureGroup>& groups_;
    int64_t last_step_;
    std::vector<std::vector<Bin>> bins_;  // of each group
    double row_height_ = 0, strips_height_ = 0;
    Plot times_;
};

}  // namespace

bool has_step_times(const std::vector<FigureGroup>& groups) {
    return std::ranges::any_of(
        groups, [](const FigureGroup& g) { return std::ranges::any_of(g.group.runs, has_steps); });
}

Svg step_time_figure(const std::vector<FigureGroup>& groups) {
    return StepPicture(groups).draw();
}

}  // namespace speedrun
