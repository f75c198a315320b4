#pragma once
#include <memory>

#include "comm/communicator.h"
#include "comm/launch.h"

namespace speedrun {

// The ranks of GPU processes, through libspeedrun_nccl.so; `device` is this rank's GPU. Collectives run on a
// stream of their own behind what the current stream holds when they are started, and Pending::wait makes the
// current stream wait. Unlike the CPU's, sums are NCCL's: in an order of its own, the same in every run on
// the same machines, and bf16 is rounded at every hop. An observer hears from a thread that polls for the
// ends; stats().waited stays 0, as waiting is the GPU's. UserError where the module is missing, where the
// ranks have no way to meet (see rendezvous.h), or where NCCL or the device refuses.
std::unique_ptr<Communicator> make_nccl_communicator(const LaunchEnvironment& environment, int64_t device);

}  // namespace speedrun
