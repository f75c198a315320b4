#pragma once
#include <span>
#include <string>
#include <vector>

#include "record/report/curve.h"

namespace speedrun {

// One axis of a picture: values from `low` to `high` (low < high), marked at `ticks`.
struct Axis {
    double low = 0, high = 1;
    std::vector<double> ticks;
    int decimals = 0;  // digits behind the point that tell the ticks apart

    // Where `value` lies, 0 at `low` and 1 at `high`.
    double share(double value) const { return (value - low) / (high - low); }
    std::string label(double tick) const;
};

// An axis over [low, high] with at most `max_ticks` ticks (>= 2) at multiples of 1, 2 or 5 times a power of
// ten. A range without extent is widened.
Axis make_axis(double low, double high, int max_ticks);

struct CurveAxes {
    Axis steps, loss;
};

// Axes that hold every finite point of the curve.
CurveAxes curve_axes(const LossCurve& curve, int max_step_ticks, int max_loss_ticks);

// The points whose loss is finite.
std::vector<CurvePoint> finite_points(std::span<const CurvePoint> points);

}  // namespace speedrun
