#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace speedrun {

// What being one of several ranks has cost one of them.
struct RankCosts {
    int64_t optimizer_state_bytes = 0;
    int64_t peak_memory_bytes = 0;
    int64_t steps = 0;
    int64_t bytes_sent = 0;              // in those steps, to other ranks
    int64_t busy_ns = 0, waited_ns = 0;  // collectives running; and compute waiting for them
};

// Those of every rank. All ranks call it.
std::vector<RankCosts> gather_costs(const RankCosts& own, Communicator& communicator);

// One line a rank: "rank 1: optimizer state 12345678 bytes, peak memory 812 MiB, sent 1234567 bytes a
// step, 3.21 s of collectives, 87 % of it hidden behind compute".
std::vector<std::string> costs_text(const std::vector<RankCosts>& costs);

}  // namespace speedrun
