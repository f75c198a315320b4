#include "train/interrupt.h"

#include <ctime>

namespace speedrun {

Interrupt::Interrupt() {
    sigemptyset(&watched_);
    sigaddset(&watched_, SIGINT);
    sigaddset(&watched_, SIGTERM);
    sigaddset(&watched_, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &watched_, &before_);
    sigemptyset(&save_);
    sigaddset(&save_, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &save_, nullptr);
}

Interrupt::~Interrupt() {
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

std::optional<int> Interrupt::poll() {
    if (arrived_) return arrived_;
    const timespec now{0, 0};
    const int signal = sigtimedwait(&watched_, nullptr, &now);
    if (signal <= 0) return std::nullopt;
    arrived_ = signal;
    pthread_sigmask(SIG_UNBLOCK, &watched_, nullptr);
    return arrived_;
}

bool Interrupt::poll_save() {
    const timespec now{0, 0};
    bool wanted = false;
    while (sigtimedwait(&save_, nullptr, &now) > 0) wanted = true;
    return wanted;
}

}  // namespace speedrun
