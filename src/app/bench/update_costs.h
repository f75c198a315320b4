#pragma once
#include <cstdint>
#include <numeric>
#include <vector>

#include "config/config.h"

namespace speedrun {

// What updating a config's matrices costs, whatever computes their gradients.
struct UpdateCosts {
    std::vector<double> ms;  // of each timed step
    int64_t state_bytes = 0;

    double mean_ms() const {
        return std::accumulate(ms.begin(), ms.end(), 0.0) / static_cast<double>(ms.size());
    }
};

// Takes `steps` steps, after one that is not counted, with random gradients; on the CPU.
UpdateCosts time_updates(const Config& config, int64_t steps);

}  // namespace speedrun
