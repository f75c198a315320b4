#pragma once
#include <c10/core/Device.h>

#include <memory>

#include "comm/communicator.h"
#include "comm/launch.h"

namespace speedrun {

// The ranks that `environment` names, whose tensors lie on `device`: one alone, MPI for CPUs, NCCL for GPUs.
// Meets the other ranks, so all of them must call it. UserErrors say which part of the program or of the
// environment is missing.
std::unique_ptr<Communicator> make_communicator(const LaunchEnvironment& environment, c10::Device device);

// Ends this process with `exit_code`, and with it the others of the job: their launcher sees to that. From
// any thread, whatever hangs in the others; no destructor runs.
[[noreturn]] void abort_job(int exit_code) noexcept;

}  // namespace speedrun
