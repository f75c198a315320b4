#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "record/log/run_log_parser.h"
#include "record/log/stalls.h"

namespace speedrun {

// How far a run is, as its log shows it.
struct RunProgress {
    enum class State {
        running,
        complete,
        ended
    } state = State::running;  // ended: before its last validation
    int64_t step = 0;
    std::optional<int64_t> scheduled_steps;
    std::optional<Validation> validation;  // the last
    double train_time_ms = kNotLogged;
    double eta_seconds = kNotLogged;  // of training, at the pace of the last steps
    Stalls stalls;
};

nlohmann::ordered_json progress_json(const RunProgress& progress);

// Reads a log that grows. The last run in it is followed.
class LogFollower {
  public:
    using Clock = std::chrono::steady_clock;

    // A run that no process of this machine writes counts as ended when its log has not grown for `patience`,
    // or at once when a process has been seen to write it before. UserError where the log cannot be read.
    explicit LogFollower(std::filesystem::path log, std::chrono::milliseconds patience);
    ~LogFollower();
    LogFollower(const LogFollower&) = delete;
    LogFollower& operator=(const LogFollower&) = delete;

    // Reads what has been added, and says how far the run is. UserError where the log has become shorter.
    RunProgress poll();

  private:
    bool read_more();  // whether there was more
    bool has_ended(bool grown);

    std::filesystem::path path_;
    std::chrono::milliseconds patience_;
    RunLogParser parser_;
    int fd_ = -1;
    uint64_t bytes_ = 0;
    bool written_here_ = false;  // a process of this machine had the log open for writing
    Clock::time_point grown_at_;
};

}  // namespace speedrun
