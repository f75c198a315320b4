#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace speedrun {

// Where a rank runs.
struct RankPlacement {
    std::string host;
    int64_t pid = 0;
    std::string device;  // "cpu", "cuda:1"
    std::string numa;    // nodes that its cores belong to: "0", "0-1"; "?" where the system does not say
    std::string cores;   // its affinity: "0-3,8"
    int64_t core_count =
        0;  // that it may use at a time: those in `cores`, or what its control group's quota gives
    int64_t threads = 0;  // for arithmetic; 0: not chosen yet
};

// This process; no threads chosen.
RankPlacement this_placement(c10::Device device);

// Threads that rank `rank` should use: its cores, divided among the ranks of its host that have the same ones
// (as where mpirun binds nobody), at least 1.
int64_t threads_of_rank(std::span<const RankPlacement> placements, int64_t rank);

// Every rank's placement, on every rank, with its threads: `threads` if that is not 0, otherwise as above.
std::vector<RankPlacement> gather_placements(Communicator& communicator, c10::Device device,
                                             int64_t threads = 0);

// One line a rank, under a line of headings.
std::string placement_table(std::span<const RankPlacement> placements);

// Sorted numbers as ranges: "0-3,8".
std::string ranges_text(std::span<const int64_t> numbers);

}  // namespace speedrun
