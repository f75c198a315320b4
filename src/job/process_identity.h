#pragma once
#include <cstdint>
#include <string>

namespace speedrun {

// A process: enough to tell a user which one it is, and to be sure that a pid still means it.
struct ProcessIdentity {
    std::string host;     // for messages
    std::string machine;  // equal for processes that see each other's pids: kernel boot and pid namespace
    int64_t pid = 0;
    int64_t started = 0;  // the kernel's start time of the process, which tells a reused pid
};

ProcessIdentity this_process();
// Equal for processes that share a loopback: kernel boot and network namespace.
std::string loopback_id();

// Whether `process` is on this machine and still there; false where its pid now belongs to another.
bool is_here(const ProcessIdentity& process) noexcept;
// SIGKILL, if it is.
void kill_process(const ProcessIdentity& process) noexcept;

}  // namespace speedrun
