#pragma once
// Whether a run fits into the memory that is free, before any of it is taken.
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"
#include "optim/ownership.h"
#include "plan/rank_memory.h"

namespace speedrun {

// The fewest rows, and so the longest micro-batches, into which every stage's batch divides, that ranks can
// share and whose memory `fits`; none: not even rows of one token.
std::optional<int64_t> fewest_rows(const Config& config, const Graph& graph, const Ownership& ownership,
                                   Operators operators,
                                   const std::function<bool(std::span<const RankMemory>)>& fits);

// Bytes that a run can still take of the device: the GPU's, or the host's. None where the system does not
// say.
std::optional<int64_t> free_memory(c10::Device device);

// The most bytes that this process has had of the device: of a GPU's what ATen had given to tensors, and what
// it had taken for them; of the host's its resident set, for both.
struct PeakMemory {
    int64_t allocated = 0, reserved = 0;
};
PeakMemory peak_memory(c10::Device device);

// What a rank has found free, and where: ranks that name the same place share it.
struct RankRoom {
    std::string place;  // "host a", "cuda:1 of host a, rank 1"
    std::optional<int64_t> free_bytes;
};

// Throws UserError unless the memory that rank_memory() says the ranks of each place need is free there: with
// what is needed, what is free, and the fewest data.rows that would fit.
void require_memory(const Config& config, std::span<const RankRoom> rooms, Operators operators);

}  // namespace speedrun
