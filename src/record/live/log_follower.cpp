#include "record/live/log_follower.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <vector>

#include "record/log/run_json.h"
#include "util/error.h"
#include "util/files.h"
#include "util/json_document.h"
#include "util/open_files.h"

namespace speedrun {
namespace {

constexpr size_t kPaceReadings = 100;

// Seconds for the steps that are left, at the pace of the last ones.
double eta_of(const Run& run) {
    if (!run.scheduled_steps || run.clock.size() < 2) return kNotLogged;
    const ClockReading& last = run.clock.back();
    const ClockReading& before = run.clock[run.clock.size() - std::min(run.clock.size(), kPaceReadings)];
    const double steps = static_cast<double>(last.step - before.step);
    const double left = static_cast<double>(*run.scheduled_steps - last.step);
    return steps > 0 ? left * (last.train_time_ms - before.train_time_ms) / steps / 1000 : kNotLogged;
}

RunProgress progress_of(const Run& run) {
    RunProgress progress;
    progress.state = run.complete() ? RunProgress::State::complete : RunProgress::State::running;
    progress.step = run.final_step;
    progress.scheduled_steps = run.scheduled_steps;
    progress.validation = run.last_validation;
    progress.train_time_ms = run.train_time_ms;
    progress.eta_seconds = eta_of(run);
    progress.stalls = find_stalls(run);
    return progress;
}

const char* state_name(RunProgress::State state) {
    switch (state) {
        case RunProgress::State::running:
            return "running";
        case RunProgress::State::complete:
            return "complete";
        case RunProgress::State::ended:
            return "ended";
    }
    throw InternalError("a state without a name");
}

}  // namespace

nlohmann::ordered_json progress_json(const RunProgress& p) {
    Json steps = Json::array();
    for (const Stall& stall : p.stalls.hiccups) steps.push_back(stall.step);
    return {
        {"state", state_name(p.state)},
        {"step", p.step},
        {"scheduled_steps", p.scheduled_steps ? Json(*p.scheduled_steps) : Json(nullptr)},
        {"train_time_ms", finite_or_null(p.train_time_ms)},
        {"val_step", p.validation ? Json(p.validation->step) : Json(nullptr)},
        {"val_loss", p.validation ? finite_or_null(p.validation->loss) : Json(nullptr)},
        {"eta_seconds", finite_or_null(p.eta_seconds)},
        {"median_step_ms", finite_or_null(p.stalls.median_step_ms)},
        {"stalls", {{"count", p.stalls.hiccups.size()}, {"lost_ms", p.stalls.lost_ms}, {"steps", steps}}}};
}

LogFollower::LogFollower(std::filesystem::path log, std::chrono::milliseconds patience)
    : path_(std::move(log)),
      patience_(patience),
      fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)),
      grown_at_(Clock::now()) {
    if (fd_ < 0) throw UserError(path_.string() + ": cannot read: " + std::strerror(errno));
    if (files::is_file(path_)) return;
    ::close(fd_);
    throw UserError(path_.string() + ": is not a regular file");
}

LogFollower::~LogFollower() {
    ::close(fd_);
}

bool LogFollower::read_more() {
    struct stat now {};
    if (::fstat(fd_, &now) == 0 && static_cast<uint64_t>(now.st_size) < bytes_)
        throw UserError(path_.string() + ": has become shorter: it was begun anew");
    std::vector<char> piece(size_t{64} * 1024);
    const uint64_t before = bytes_;
    for (;;) {
        const ssize_t got = ::read(fd_, piece.data(), piece.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw UserError(path_.string() + ": cannot read: " + std::strerror(errno));
        if (got == 0) break;
        parser_.feed({piece.data(), static_cast<size_t>(got)});
        bytes_ += static_cast<uint64_t>(got);
    }
    return bytes_ > before;
}

bool LogFollower::has_ended(bool grown) {
    if (grown) {
        grown_at_ = Clock::now();
        return false;
    }
    if (is_open_for_writing(path_)) {
        written_here_ = true;
        return false;
    }
    return written_here_ || Clock::now() - grown_at_ >= patience_;
}

RunProgress LogFollower::poll() {
    const bool ended = has_ended(read_more());
    // What came between the two looks is the end of a log whose writer has just gone.
    if (ended) read_more();
    const RunLog& log = parser_.so_far();
    if (log.binary) throw UserError(path_.string() + ": a binary file, not a log");
    RunProgress progress = log.runs.empty() ? RunProgress() : progress_of(log.runs.back());
    if (ended && progress.state == RunProgress::State::running) progress.state = RunProgress::State::ended;
    return progress;
}

}  // namespace speedrun
