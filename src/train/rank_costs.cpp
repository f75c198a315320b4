#include "train/rank_costs.h"

#include <ATen/ATen.h>
#include <fmt/core.h>

#include <algorithm>

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
        lines.push_back(fmt::format(
            "rank {}: optimizer state {} bytes, peak memory {} MiB, sent {} bytes a step, {:.2f} s of "
            "collectives, {:.0f} % of it hidden behind compute",
            rank, c.optimizer_state_bytes, c.peak_memory_bytes >> 20,
            c.steps > 0 ? c.bytes_sent / c.steps : 0, static_cast<double>(c.busy_ns) / 1e9,
            100 * hidden_share(c)));
    }
    return lines;
}

}  // namespace speedrun
