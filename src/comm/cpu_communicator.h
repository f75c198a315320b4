#pragma once
#include <memory>

#include "comm/communicator.h"
#include "comm/transport.h"

namespace speedrun {

// The ranks of CPU processes: a thread makes all calls of the transport and runs the collectives beside the
// caller. Destroyed while an exception unwinds or after a collective has failed, it leaves without closing
// the transport, which would wait for the other ranks.
std::unique_ptr<Communicator> make_cpu_communicator(std::unique_ptr<Transport> transport);

}  // namespace speedrun
