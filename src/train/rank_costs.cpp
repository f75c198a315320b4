#include "train/rank_costs.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>

namespace speedrun {
namespace {

constexpr int64_t kNumbers = sizeof(RankCosts) / sizeof(int64_t);

double hidden_share(const RankCosts& costs) {
    if (costs.busy_ns == 0) return 0;
    return std::clamp(1 - static_cast<double>(costs.waited_ns) / static_cast<double>(costs.busy_ns), 0.0,
                      1.0);
}

}  // namespace

std::vector<RankCosts> gather_costs(const RankCosts& own, Communicator& communicator) {
    std::vector<RankCosts> all(static_cast<size_t>(communicator.world_size()));
    all[static_cast<size_t>(communicator.rank())] = own;
    const at::Tensor numbers = at::from_blob(all.data(), {communicator.world_size() * kNumbers},
                                             at::TensorOptions().dtype(at::kLong));
    const std::vector<int64_t> counts(all.size(), kNumbers);
    communicator.all_gather(numbers, counts, "costs")->wait();
    return all;
}

std::vector<std::string> costs_text(const std::vector<RankCosts>& costs) {
    std::vector<std::string> lines;
    for (size_t rank = 0; rank < costs.size(); ++rank) {
        const RankCosts& c = costs[rank];
        const auto number = [](int64_t x) { return static_cast<long long>(x); };
        char line[240];
        std::snprintf(
            line, sizeof line,
            "rank %zu: optimizer state %lld bytes, peak memory %lld MiB, sent %lld bytes a step, %.2f s of "
            "collectives, %.0f %% of it hidden behind compute",
            rank, number(c.optimizer_state_bytes), number(c.peak_memory_bytes >> 20),
            number(c.steps > 0 ? c.bytes_sent / c.steps : 0), static_cast<double>(c.busy_ns) / 1e9,
            100 * hidden_share(c));
        lines.emplace_back(line);
    }
    return lines;
}

}  // namespace speedrun
