#include "record/report/axis.h"

#include <fmt/core.h>
#include <algorithm>
#include <cmath>

namespace speedrun {
namespace {

// The smallest of 1, 2, 5 times a power of ten that parts `extent` into at most `max_ticks` - 1 intervals.
double tick_interval(double extent, int max_ticks) {
    const double least = extent / (max_ticks - 1);
    const double power = std::pow(10.0, std::floor(std::log10(least)));
    for (const double factor : {1.0, 2.0, 5.0})
        if (factor * power >= least) return factor * power;
    return 10 * power;
}

}  // namespace

std::string Axis::label(double tick) const {
    return fmt::format("{:.{}f}", tick, decimals);
}

Axis make_axis(double low, double high, int max_ticks) {
    if (!(high > low)) {
        const double pad = std::max(1.0, std::abs(low)) / 2;
        low -= pad;
        high += pad;
    }
    Axis axis{low, high, {}, 0};
    const double interval = tick_interval(high - low, max_ticks);
    axis.decimals = std::max(0, -static_cast<int>(std::floor(std::log10(interval) + 1e-9)));
    for (double k = std::ceil(low / interval - 1e-9); k * interval <= high + 1e-9 * interval; ++k)
        axis.ticks.push_back(k * interval + 0.0);  // + 0.0: no "-0"
    return axis;
}

std::vector<CurvePoint> finite_points(std::span<const CurvePoint> points) {
    std::vector<CurvePoint> kept;
    std::ranges::copy_if(points, std::back_inserter(kept),
                         [](const CurvePoint& p) { return std::isfinite(p.loss); });
    return kept;
}

CurveAxes curve_axes(const LossCurve& curve, int max_step_ticks, int max_loss_ticks) {
    std::vector<CurvePoint> all = finite_points(curve.train);
    const std::vector<CurvePoint> validation = finite_points(curve.validation);
    all.insert(all.end(), validation.begin(), validation.end());
    if (all.empty()) all.push_back({0, 0});
    const auto [first, last] = std::ranges::minmax(all, {}, &CurvePoint::step);
    const auto [least, most] = std::ranges::minmax(all, {}, &CurvePoint::loss);
    const double pad = 0.04 * (most.loss - least.loss);
    const double from = static_cast<double>(std::min<int64_t>(first.step, 0));
    return {make_axis(from, static_cast<double>(last.step), max_step_ticks),
            make_axis(least.loss - pad, most.loss + pad, max_loss_ticks)};
}

}  // namespace speedrun
