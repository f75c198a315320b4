#include "model/graph/node.h"

#include <algorithm>

namespace speedrun {

Scratch larger(const Scratch& a, const Scratch& b) {
    return {.packed_left = std::max(a.packed_left, b.packed_left),
            .packed_right = std::max(a.packed_right, b.packed_right),
            .kept = std::max(a.kept, b.kept),
            .passing = std::max(a.passing, b.passing),
            .gpu = std::max(a.gpu, b.gpu)};
}

}  // namespace speedrun
