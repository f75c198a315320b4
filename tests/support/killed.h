#pragma once
#include <csignal>

namespace speedrun {

// The exit code of a process that SIGKILL ended, as shells and mpirun tell it.
constexpr int kKilled = 128 + SIGKILL;

}  // namespace speedrun
