#include "model/graph/node.h"

#include <algorithm>

namespace speedrun {

double mean_keys(int64_t window, int64_t length) {
    const auto w = static_cast<double>(std::min(window, length - 1)), n = static_cast<double>(length);
    return (w + 1) - w * (w + 1) / (2 * n);
}

Scratch larger(const Scratch& a, const Scratch& b) {
    return {.packed_left = std::max(a.packed_left, b.packed_left),
            .packed_right = std::max(a.packed_right, b.packed_right),
            .kept = std::max(a.kept, b.kept),
            .passing = std::max(a.passing, b.passing),
            .gpu = std::max(a.gpu, b.gpu)};
}

}  // namespace speedrun
