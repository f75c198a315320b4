#pragma once
// Starts real ranks: `mpirun -n RANKS PROGRAM ARGUMENTS`, and collects what they print.
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace speedrun {

struct JobResult {
    int exit_code = 0;   // mpirun's; 124 where it ran past the limit
    std::string output;  // stdout and stderr of all ranks
};

// Runs `command` in a shell, for `limit_s` seconds at most.
inline JobResult run_command(const std::string& command, int limit_s = 60) {
    const std::string limited =
        "timeout -k 5 " + std::to_string(limit_s) + " sh -c '" + command + "' 2>&1 </dev/null";
    FILE* const pipe = popen(limited.c_str(), "r");
    if (!pipe) throw std::runtime_error("popen failed");
    JobResult result;
    char buffer[4096];
    while (const size_t got = std::fread(buffer, 1, sizeof buffer, pipe)) result.output.append(buffer, got);
    const int status = pclose(pipe);
    result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return result;
}

// Whether ranks can be started here at all: Open MPI's mpirun is installed.
inline bool have_mpirun() {
    return std::system("mpirun --version 2>/dev/null | grep -q 'Open MPI'") == 0;
}

// `program` holds no quotes or spaces. --quiet: what the ranks print last is the last line. More ranks than
// cores are welcome; each gets one thread. In a build with AddressSanitizer, leaks are not looked for: Open
// MPI has thousands.
inline JobResult mpirun(int ranks, const std::string& program_and_arguments, int limit_s = 60) {
    return run_command("ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 mpirun -n " + std::to_string(ranks) +
                           " --quiet --oversubscribe --allow-run-as-root --bind-to none " +
                           program_and_arguments,
                       limit_s);
}

}  // namespace speedrun
