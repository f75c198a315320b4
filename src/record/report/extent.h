#pragma once
#include <algorithm>
#include <cmath>

namespace speedrun {

// The range of the finite values among those it is shown.
struct Extent {
    double low = INFINITY, high = -INFINITY;

    void include(double value) {
        if (!std::isfinite(value)) return;
        low = std::min(low, value);
        high = std::max(high, value);
    }
    bool empty() const { return !(low <= high); }
    double length() const { return high - low; }
};

}  // namespace speedrun
