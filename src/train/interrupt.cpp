#include "train/interrupt.h"

#include <ctime>

namespace speedrun {

Interrupt::Interrupt() {
    sigemptyset(&watched_);
    sigaddset(&watched_, SIGINT);
    sigaddset(&watched_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &watched_, &before_);
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
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    return arrived_;
}

}  // namespace speedrun
