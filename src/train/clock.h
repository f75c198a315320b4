#pragma once
#include <chrono>

namespace speedrun {

// The track's clock: runs while training, stands while validating or warming up. Monotonic.
class TrainClock {
  public:
    void start() { started_ = std::chrono::steady_clock::now(); }
    // Goes on from `milliseconds`, standing.
    void set(double milliseconds) {
        elapsed_ = std::chrono::duration_cast<std::chrono::steady_clock::duration>(
            std::chrono::duration<double, std::milli>(milliseconds));
    }
    void stop() { elapsed_ += std::chrono::steady_clock::now() - started_; }
    double stopped_ms() const { return milliseconds(elapsed_); }  // while it stands
    double running_ms() const {
        return milliseconds(elapsed_ + (std::chrono::steady_clock::now() - started_));
    }

  private:
    static double milliseconds(std::chrono::steady_clock::duration d) {
        return std::chrono::duration<double, std::milli>(d).count();
    }
    std::chrono::steady_clock::time_point started_{};
    std::chrono::steady_clock::duration elapsed_{};
};

}  // namespace speedrun
