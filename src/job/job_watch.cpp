#include "job/job_watch.h"

#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <exception>

#include "util/error.h"

namespace speedrun {
namespace {

// A thread that takes no signals: those are the main thread's.
template <typename Body>
std::thread start_without_signals(Body body) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread thread(std::move(body));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
}

}  // namespace

Watch::Watch(const JobTiming& timing)
    : timing_(timing), deadline_s_(timing.deadline_s), wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    check(wake_.get() >= 0, "eventfd");
}

void Watch::start() {
    thread_ = start_without_signals([this] { run(); });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return started_; });
}

void Watch::require_same(const Facts& facts) {
    post(message("facts", "facts", facts));
    std::unique_lock lock(mutex_);
    const int64_t round = ++asked_;
    changed_.wait(lock, [&] { return agreed_ >= round; });
}

void Watch::at_end(LastCall told) {
    const std::lock_guard lock(mutex_);
    told_ = std::move(told);
}

LastCall Watch::last_call() {
    const std::lock_guard lock(mutex_);
    return told_ ? told_ : [](const std::string&) {};
}

void Watch::finish() {
    post(message("goodbye"));
    thread_.join();
}

void Watch::fail(const Failure& failure) {
    post(message("failed", "failure", failure));
    while (true) ::pause();
}

void Watch::post(const ControlMessage& mail) {
    {
        const std::lock_guard lock(mutex_);
        mail_.push_back(mail);
    }
    const uint64_t one = 1;
    check(::write(wake_.get(), &one, sizeof one) == sizeof one, "waking the watchdog");
}

std::vector<ControlMessage> Watch::take_mail() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t nothing_there = ::read(wake_.get(), &count, sizeof count);
    const std::lock_guard lock(mutex_);
    return std::exchange(mail_, {});
}

void Watch::joined() {
    const std::lock_guard lock(mutex_);
    started_ = true;
    changed_.notify_all();
}

void Watch::agreed() {
    const std::lock_guard lock(mutex_);
    ++agreed_;
    changed_.notify_all();
}

void Watch::finished() {
    const std::lock_guard lock(mutex_);
    finished_ = true;
}

double Watch::heartbeat_s() const {
    return std::min(std::chrono::duration<double>(timing_.heartbeat).count(), deadline_s_ / 8);
}

Patience Watch::patience() const {
    const double deadline = deadline_s_;
    return {.deadline_s = deadline, .silence_s = std::min(2.0, deadline / 2)};
}

void Watch::run() {
    prctl(PR_SET_NAME, "watchdog");
    try {
        // Waiting comes last: at the start there may be messages that have been read already.
        last_tick_ = Clock::now();
        for (turn(); !finished_; turn()) wait_for_something();
    } catch (const std::exception& error) {
        on_fault(error.what());
    }
}

void Watch::turn() {
    for (const ControlMessage& mail : take_mail()) on_mail(mail);
    on_sockets();
    const auto now = Clock::now();
    if (timer_ && now >= *timer_) {
        timer_.reset();
        on_timer();
    }
    const double elapsed = std::chrono::duration<double>(now - last_tick_).count();
    if (elapsed < heartbeat_s()) return;
    last_tick_ = now;
    // Time in which this process was stopped itself is nobody's fault.
    on_tick(std::min(elapsed, 4 * heartbeat_s()));
}

void Watch::wait_for_something() {
    auto until = last_tick_ +
                 std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(heartbeat_s()));
    if (timer_) until = std::min(until, *timer_);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    std::vector<pollfd> sockets{{.fd = wake_.get(), .events = POLLIN, .revents = 0}};
    add_sockets(sockets);
    ::poll(sockets.data(), sockets.size(), static_cast<int>(std::max<int64_t>(left, 0)));
}

}  // namespace speedrun
