#pragma once
// The ranks of a job as child processes of the test, without mpirun. They are forked, and not started as
// programs of their own, because LibTorch takes a good part of a second to load.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "job/job_worker.h"
#include "support/temporary_folder.h"

namespace speedrun {

using namespace std::chrono_literals;

inline std::string file_text(const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

class JobProcesses {
  public:
    using Clock = std::chrono::steady_clock;

    // `arguments` as in job_worker.h. Ranks in `missing` are not started.
    JobProcesses(int world, const std::vector<std::string>& arguments, const std::vector<int>& missing = {}) {
        for (int rank = 0; rank < world; ++rank)
            if (std::ranges::find(missing, rank) == missing.end()) {
                start(rank, world, arguments);
            } else {
                pids_.push_back(-1);
                statuses_.push_back(0);
            }
    }
    ~JobProcesses() {
        for (const pid_t pid : pids_)
            if (pid > 0) ::kill(pid, SIGKILL), ::waitpid(pid, nullptr, 0);
    }
    JobProcesses(const JobProcesses&) = delete;
    JobProcesses& operator=(const JobProcesses&) = delete;

    // Until every rank works at its steps.
    void wait_until_working() const {
        for (size_t rank = 0; rank < pids_.size(); ++rank)
            wait_for(folder_ / ("pid." + std::to_string(rank)));
    }
    void wait_for_address() const { wait_for(folder_ / "address"); }
    std::string address() const { return file_text(folder_ / "address"); }
    pid_t pid(int rank) const { return pids_[static_cast<size_t>(rank)]; }
    void signal(int rank, int signal) {
        ::kill(pids_[static_cast<size_t>(rank)], signal);
        began_ = Clock::now();
    }
    // Stops a rank and waits until all its threads stand still.
    void stop(int rank) {
        signal(rank, SIGSTOP);
        ::waitpid(pids_[static_cast<size_t>(rank)], nullptr, WUNTRACED);
    }

    // Seconds from the last signal until something is printed.
    double wait_until_said(double limit_s) const {
        const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - began_).count(); };
        while (err().empty() && elapsed() < limit_s) std::this_thread::sleep_for(1ms);
        return elapsed();
    }
    // Seconds from when it worked, or from the last signal, to the end of the last rank. That some rank is
    // left then is an error.
    double wait(double limit_s) {
        const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - began_).count(); };
        while (reap() && elapsed() < limit_s) std::this_thread::sleep_for(2ms);
        EXPECT_LT(elapsed(), limit_s) << "some rank is left; stderr: " << err();
        return elapsed();
    }
    // As a shell says it: 128 + signal for those killed.
    int exit_code(int rank) const {
        const int status = statuses_[static_cast<size_t>(rank)];
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    std::string err() const { return file_text(folder_ / "stderr"); }
    std::string out() const { return file_text(folder_ / "stdout"); }

  private:
    void start(int rank, int world, std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(),
                         {"folder=" + folder_.path().string(), "rank=" + std::to_string(rank),
                          "world=" + std::to_string(world)});
        const std::string out = folder_ / "stdout", err = folder_ / "stderr";
        std::fflush(stdout);  // or the child would write it again
        const pid_t pid = ::fork();
        if (pid == 0) {
            constexpr int append = O_WRONLY | O_CREAT | O_APPEND;
            ::dup2(::open(out.c_str(), append, 0600), STDOUT_FILENO);
            ::dup2(::open(err.c_str(), append, 0600), STDERR_FILENO);
            live(arguments);
        }
        pids_.push_back(pid);
        statuses_.push_back(0);
    }
    [[noreturn]] static void live(const std::vector<std::string>& arguments) {
        hold_signals();
        int exit_code = 1;
        try {
            exit_code = run_with_files(parse(arguments));
        } catch (const std::exception& error) {
            std::fprintf(stderr, "outside of the job: %s\n", error.what());
        }
        std::fflush(stdout);
        ::_exit(exit_code);
    }
    // True while some rank lives.
    bool reap() {
        bool some = false;
        for (size_t rank = 0; rank < pids_.size(); ++rank) {
            if (pids_[rank] <= 0) continue;
            if (::waitpid(pids_[rank], &statuses_[rank], WNOHANG) == pids_[rank]) pids_[rank] = -1;
            some = some || pids_[rank] > 0;
        }
        return some;
    }
    static void wait_for(const std::filesystem::path& file) {
        const auto until = Clock::now() + 20s;
        while (!std::filesystem::exists(file)) {
            if (Clock::now() > until) throw std::runtime_error(file.string() + " does not appear");
            std::this_thread::sleep_for(2ms);
        }
    }

    TemporaryFolder folder_;
    std::vector<pid_t> pids_;
    std::vector<int> statuses_;
    Clock::time_point began_ = Clock::now();
};

}  // namespace speedrun
