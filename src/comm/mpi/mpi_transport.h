#pragma once
#include <memory>

#include "comm/launch.h"
#include "comm/transport.h"

namespace speedrun {

// Whether the build has made libspeedrun_mpi.so.
bool have_mpi();

// Messages through MPI, by way of libspeedrun_mpi.so. UserError where that is missing; open() throws one
// where MPI counts other ranks than the launcher.
std::unique_ptr<Transport> make_mpi_transport(const LaunchEnvironment& environment);

// MPI_Abort, where MPI is in use: ends all ranks. From any thread. May return.
void abort_mpi(int exit_code);

}  // namespace speedrun
