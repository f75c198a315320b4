#include "train/interrupt.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <ctime>

#include "util/error.h"

namespace speedrun {
namespace {

bool is_ignored(int signal) {
    struct sigaction action {};
    return ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

sigset_t signals_that_end_a_run() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGUSR2}) sigaddset(&signals, signal);
    if (!is_ignored(SIGHUP)) sigaddset(&signals, SIGHUP);
    return signals;
}

// A pending signal of the set, of this thread or of the process; 0: none.
int take_pending(const sigset_t& signals) {
    const timespec now{0, 0};
    const int signal = sigtimedwait(&signals, nullptr, &now);
    return signal > 0 ? signal : 0;
}

// As if nobody had held it back. One that is ignored meanwhile, as by a rank that ends its job, stays so.
void take_effect(int signal) {
    if (is_ignored(signal)) return;
    ::signal(signal, SIG_DFL);
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, signal);
    pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
    ::raise(signal);
}

}  // namespace

Interrupt::Interrupt() : watched_(signals_that_end_a_run()) {
    sigemptyset(&save_);
    sigaddset(&save_, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &watched_, &before_);
    pthread_sigmask(SIG_BLOCK, &save_, nullptr);
    signals_ = ::signalfd(-1, &watched_, SFD_CLOEXEC | SFD_NONBLOCK);
    end_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    check(signals_ >= 0 && end_ >= 0, "signalfd and eventfd");
    watcher_ = std::thread([this] { watch(); });
}

Interrupt::~Interrupt() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t told = ::write(end_, &one, sizeof one);
    watcher_.join();
    while (take_pending(watched_) != 0 || take_pending(save_) != 0) {
    }
    ::close(signals_);
    ::close(end_);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void Interrupt::watch() {
    prctl(PR_SET_NAME, "signals");
    std::array<pollfd, 2> sources{pollfd{signals_, POLLIN, 0}, pollfd{end_, POLLIN, 0}};
    while (true) {
        ::poll(sources.data(), sources.size(), -1);
        signalfd_siginfo info{};
        while (::read(signals_, &info, sizeof info) == sizeof info) arrived(static_cast<int>(info.ssi_signo));
        if (sources[1].revents != 0) return;
    }
}

void Interrupt::arrived(int signal) {
    int none = 0;
    if (!first_.compare_exchange_strong(none, signal)) take_effect(signal);
}

std::optional<int> Interrupt::poll() {
    if (const int own = take_pending(watched_); own != 0) arrived(own);
    const int first = first_;
    return first != 0 ? std::optional(first) : std::nullopt;
}

bool Interrupt::poll_save() {
    bool wanted = false;
    while (take_pending(save_) != 0) wanted = true;
    return wanted;
}

void forget_late_signals() {
    const sigset_t signals = signals_that_end_a_run();
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

}  // namespace speedrun
