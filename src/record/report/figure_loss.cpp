#include <fmt/core.h>
#include <algorithm>
#include <cmath>

#include "record/report/extent.h"
#include "record/report/figures.h"

namespace speedrun {
namespace {

constexpr double kLossWidth = 880, kLossHeight = 400;
constexpr double kShownFrom = 0.06;       // of the run: the fall before it would take most of the picture
constexpr size_t kMostTrainPoints = 300;  // of a run
constexpr size_t kMostDots = 40;          // validations of a run that are marked one by one

// A loss on both of its axes.
struct LossPoint {
    double step = 0, seconds = 0, loss = 0;
    double x(Over over, double unit) const { return over == Over::steps ? step : seconds / unit; }
};

std::vector<LossPoint> validations(const Run& run) {
    std::vector<LossPoint> points;
    for (const Validation& v : run.validations)
        if (std::isfinite(v.loss))
            points.push_back({static_cast<double>(v.step), v.train_time_ms / 1000, v.loss});
    return points;
}

// Means of equal numbers of steps, at their last.
std::vector<LossPoint> train_losses(const Run& run) {
    std::vector<LossPoint> points;
    const size_t bin = run.train_losses.size() / kMostTrainPoints + 1;
    const double ms_per_step = run.train_time_ms / static_cast<double>(std::max<int64_t>(run.final_step, 1));
    for (size_t i = 0; i + bin <= run.train_losses.size(); i += bin) {
        double sum = 0;
        for (size_t k = i; k < i + bin; ++k) sum += run.train_losses[k].loss;
        const auto step = static_cast<double>(run.train_losses[i + bin - 1].step);
        const double loss = sum / static_cast<double>(bin);
        if (std::isfinite(loss)) points.push_back({step, step * ms_per_step / 1000, loss});
    }
    return points;
}

class LossPicture {
  public:
    LossPicture(const std::vector<FigureGroup>& groups, Over over)
        : groups_(groups),
          over_(over),
          svg_(kLossWidth, kLossHeight, over == Over::steps ? "loss over steps" : "loss over time") {}

    Svg draw() {
        measure();
        draw_axes(svg_, plot_, x_name(), "loss (nats per token)");
        svg_.begin_clip({plot_.left, plot_.top}, plot_.width, plot_.height);
        for (size_t i = 0; i < groups_.size(); ++i) draw_train_losses(i);
        for (size_t i = 0; i < groups_.size(); ++i)
            for (const GroupRun& run : groups_[i].group.runs) draw_run(run.run, i);
        svg_.end_clip();
        target();
        legend();
        return std::move(svg_);
    }

  private:
    std::string x_name() const {
        return over_ == Over::steps ? "step" : unit_ == 1 ? "training time (s)" : "training time (min)";
    }

    void measure() {
        double longest = 0;
        for (const FigureGroup& g : groups_)
            for (const GroupRun& r : g.group.runs)
                for (const LossPoint& p : validations(r.run)) longest = std::fmax(longest, p.seconds);
        unit_ = longest > 900 ? 60 : 1;
        Extent x, y, y_of_all;
        for (const FigureGroup& g : groups_) {
            y.include(g.verdict.target);
            for (const GroupRun& r : g.group.runs) {
                const auto points = validations(r.run);
                for (const LossPoint& p : points) {
                    x.include(p.x(over_, unit_));
                    y_of_all.include(p.loss);
                    if (p.step >= kShownFrom * static_cast<double>(r.run.final_step)) y.include(p.loss);
                }
            }
        }
        if (x.empty()) x = {0, 1};
        if (y.empty()) y = y_of_all.empty() ? Extent{0, 1} : y_of_all;
        const double pad = 0.05 * (y.high - y.low);
        plot_ = {66,
                 18,
                 kLossWidth - 66 - 22,
                 kLossHeight - 18 - 54,
                 make_axis(std::min(0.0, x.low), x.high, 11),
                 make_axis(y.low - pad, y.high + pad, 9)};
    }

    std::vector<Point> placed(const std::vector<LossPoint>& points) const {
        std::vector<Point> placed;
        for (const LossPoint& p : points)
            if (const double x = p.x(over_, unit_); std::isfinite(x)) placed.push_back(plot_.at(x, p.loss));
        return placed;
    }

    // Of one run: those of many would hide everything else.
    void draw_train_losses(size_t group) {
        const auto& runs = groups_[group].group.runs;
        if (!runs.empty())
            svg_.polyline(placed(train_losses(runs.front().run)),
                          "line" + std::to_string(group % kSeriesLooks) + " faint");
    }

    void draw_run(const Run& run, size_t group) {
        const std::string look = std::to_string(group % kSeriesLooks);
        const auto points = placed(validations(run));
        svg_.polyline(points, "line" + look + (groups_[group].group.runs.size() > 1 ? " many" : ""));
        if (points.size() > kMostDots) return;
        for (const Point& p : points) svg_.circle(p, 2, "see-through fill" + look);
    }

    void target() {
        const double target = groups_.front().verdict.target;
        const Point left = plot_.at(plot_.x.low, target);
        svg_.line(left, {plot_.right(), left.y}, "target");
        svg_.text({plot_.left + 8, left.y - 6}, "start", fmt::format("target {:g}", target), "targetname");
    }

    void legend() {
        constexpr double kRow = 19;
        for (size_t i = 0; i < groups_.size(); ++i) {
            const double y = plot_.top + 20 + kRow * static_cast<double>(i);
            const Verdict& v = groups_[i].verdict;
            std::string words = groups_[i].name + fmt::format(": {} runs", v.loss.n);
            if (v.loss.n == 1) words.pop_back();
            if (!std::isnan(v.loss.mean)) words += fmt::format(", mean final loss {:.4f}", v.loss.mean);
            svg_.text({plot_.right() - 38, y}, "end", words);
            svg_.line({plot_.right() - 30, y - 4}, {plot_.right() - 8, y - 4},
                      "thick line" + std::to_string(i % kSeriesLooks));
        }
    }

    const std::vector<FigureGroup>& groups_;
    Over over_;
    double unit_ = 1;  // seconds
    Svg svg_;
    Plot plot_;
};

}  // namespace

Svg loss_figure(const std::vector<FigureGroup>& groups, Over over) {
    return LossPicture(groups, over).draw();
}

bool has_times(const std::vector<FigureGroup>& groups) {
    return std::ranges::any_of(groups,
                               [](const FigureGroup& g) { return std::isfinite(g.verdict.time_ms.mean); });
}

}  // namespace speedrun
