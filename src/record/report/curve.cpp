#include "record/report/curve.h"

#include <fmt/core.h>

#include "record/live/progress.h"
#include "record/report/axis.h"
#include "record/report/svg.h"
#include "util/atomic_file.h"

namespace speedrun {
namespace {

constexpr double kWidth = 880, kHeight = 500;
constexpr double kLeft = 66, kRight = 22, kTop = 48, kBottom = 54;
constexpr size_t kMaxPoints = 4000;  // more than a picture of this width can show

std::vector<Point> placed(const std::vector<CurvePoint>& points, const Plot& plot) {
    std::vector<Point> placed;
    const size_t stride = points.size() / kMaxPoints + 1;
    for (size_t i = 0; i < points.size(); i += stride)
        placed.push_back(plot.at(static_cast<double>(points[i].step), points[i].loss));
    if (!points.empty() && (points.size() - 1) % stride != 0)
        placed.push_back(plot.at(static_cast<double>(points.back().step), points.back().loss));
    return placed;
}

void draw_legend(Svg& svg, const Plot& plot, double row, const char* name,
                 const std::vector<CurvePoint>& points, const char* look) {
    if (points.empty()) return;
    const double y = plot.top + 20 + 19 * row;
    svg.text({plot.right() - 38, y}, "end", fmt::format("{} {:.4f}", name, points.back().loss));
    svg.line({plot.right() - 30, y - 4}, {plot.right() - 8, y - 4}, look);
}

}  // namespace

std::string curve_svg(const LossCurve& curve) {
    const auto train = finite_points(curve.train), validation = finite_points(curve.validation);
    const CurveAxes axes = curve_axes(curve, 11, 9);
    const Plot plot{kLeft, kTop, kWidth - kLeft - kRight, kHeight - kTop - kBottom, axes.steps, axes.loss};
    Svg svg(kWidth, kHeight, curve.title);
    svg.text({kWidth / 2, 26}, "middle", curve.title, "strong");
    const std::string time = duration_text(curve.train_time_ms / 1000);
    draw_axes(svg, plot, curve.train_time_ms > 0 ? "step (training time " + time + ")" : "step",
              "loss (nats per token)");
    svg.polyline(placed(train, plot), "line0");
    svg.polyline(placed(validation, plot), "line6");
    for (const CurvePoint& p : validation)
        svg.circle(plot.at(static_cast<double>(p.step), p.loss), 3.5, "fill6");
    draw_legend(svg, plot, 0, "validation", validation, "thick line6");
    draw_legend(svg, plot, 1, "training", train, "thick line0");
    return svg.alone();
}

void write_curve(const LossCurve& curve, const std::filesystem::path& path) {
    write_atomically(path, curve_svg(curve));
}

}  // namespace speedrun
