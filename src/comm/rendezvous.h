#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/launch.h"

namespace speedrun {

// How ranks that do not yet talk to each other hand out one small thing: rank 0's bytes.
class Rendezvous {
  public:
    virtual ~Rendezvous() = default;
    // Rank 0's `bytes`, on every rank, which all call this once.
    virtual std::vector<uint8_t> from_rank_0(std::vector<uint8_t> bytes) = 0;
};

// Through MPI where the launcher sets that up and the program has it, otherwise through LibTorch's TCPStore
// at MASTER_ADDR:MASTER_PORT. UserError where there is neither, or where the ranks have not met by `timeout`.
// Lives as long as the run: MPI is left when it is destroyed.
std::unique_ptr<Rendezvous> make_rendezvous(const LaunchEnvironment& environment,
                                            std::chrono::milliseconds timeout = std::chrono::minutes(2));

}  // namespace speedrun
