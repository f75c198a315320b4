#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "job/control_channel.h"
#include "job/process_identity.h"
#include "job/watchdog.h"

namespace speedrun {

// A launcher reports the exit code of the first process that it sees end: those of the ranks that leave by
// themselves have so long before others are killed.
inline constexpr std::chrono::milliseconds kKillDelay{200};

// Another rank that is to leave: it is gone when `channel` is no longer open.
struct Companion {
    int64_t rank = 0;
    ProcessIdentity process;
    Channel channel;
    bool silent = false;  // is told, and not waited for
};

// Ends this process by `exit_code`, whatever its other threads do or hang in: flushes what stdout holds,
// closes `channel`, by which the one that ends the job knows that nothing more will be printed here, and runs
// nothing else.
[[noreturn]] void leave(int exit_code, Channel& channel) noexcept;

// What the witness of an end does, the lowest rank that is told of it: waits until the one that ends the job
// has said why, at the other end of `channel`; says it where that one dies before; and leaves.
[[noreturn]] void stand_by(const Cause& cause, Channel& channel) noexcept;

// Told the cause by the process that ends a job, once it has said it.
using LastCall = std::function<void(const std::string& why)>;

// Ends the job: tells `companions`, gives those that answer half a second to leave, prints the cause as the
// last line, calls `told`, kills those of this machine that are still there, and `more_to_kill`, and leaves.
[[noreturn]] void end_job(const Cause& cause, const std::string& token, std::vector<Companion> companions,
                          const std::vector<ProcessIdentity>& more_to_kill, const LastCall& told) noexcept;

}  // namespace speedrun
