#pragma once
// A program or job that runs beside the test, to be disturbed.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "support/mpirun.h"

namespace speedrun {

class RunningJob {
  public:
    // `command` as for a shell; what it prints goes to the file `output`.
    RunningJob(const std::string& command, std::filesystem::path output) : output_(std::move(output)) {
        const std::string line = "exec " + command + " >" + output_.string() + " 2>&1 </dev/null";
        setenv("OMP_NUM_THREADS", "1", 1);
        pid_ = fork();
        if (pid_ == 0) {
            execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
            _exit(127);
        }
    }
    ~RunningJob() {
        if (pid_ <= 0) return;
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    RunningJob(const RunningJob&) = delete;
    RunningJob& operator=(const RunningJob&) = delete;

    void send(int signal) const { kill(pid_, signal); }

    // Until `condition` holds or the job has ended; whether it holds. For a minute at most.
    template <typename Condition>
    bool wait_until(Condition condition) {
        for (int i = 0; i < 30'000 && !condition(); ++i) {
            if (ended()) return condition();
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
        return condition();
    }

    // Exit code (128 + the signal for a killed one; 124 for one that runs on after `limit_s`) and output.
    JobResult finish(int limit_s = 60) {
        const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(limit_s);
        while (!ended() && std::chrono::steady_clock::now() < limit)
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        JobResult result;
        result.exit_code = !ended()             ? 124
                           : WIFEXITED(status_) ? WEXITSTATUS(status_)
                                                : 128 + WTERMSIG(status_);
        std::ifstream in(output_);
        result.output.assign(std::istreambuf_iterator<char>(in), {});
        return result;
    }

  private:
    bool ended() {
        if (pid_ > 0 && waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = 0;
        return pid_ == 0;
    }

    std::filesystem::path output_;
    pid_t pid_ = 0;
    int status_ = 0;
};

// The processes of this machine that train in `run_dir`, without their launcher.
inline std::vector<pid_t> ranks_of(const std::filesystem::path& run_dir) {
    const std::string wanted = std::string("--run-dir") + '\0' + run_dir.string() + '\0';
    std::vector<pid_t> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        const std::string name = entry.path().filename();
        pid_t pid = 0;
        if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc{}) continue;
        std::ifstream in(entry.path() / "cmdline", std::ios::binary);
        const std::string words{std::istreambuf_iterator<char>(in), {}};
        const std::string program = words.substr(0, words.find('\0'));
        if (program.ends_with("/speedrun") && words.find(wanted) != std::string::npos) found.push_back(pid);
    }
    return found;
}

}  // namespace speedrun
