#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "comm/communicator.h"

namespace speedrun {

// What a rank is doing.
struct RankState {
    int64_t step = -1;    // -1: before the first
    int64_t begun = 0;    // sequence number of the last collective it entered; 0: none yet
    std::string what;     // that collective
    bool inside = false;  // it is still in it; else it computes
    double for_s = 0;     // since it entered or left it, at least
};

// Takes down what this rank does, for the watchdog to read. The one who does it pays an atomic store a step
// and an uncontended lock a collective; time is counted by the reader.
class Activity final : public CollectiveObserver {
  public:
    void at_step(int64_t step) { step_.store(step, std::memory_order_relaxed); }
    void begin(int64_t sequence, const std::string& what) override;
    void end(int64_t sequence) override;

    // `elapsed_s` since the last call is added to the age of a state that has not changed since. A collective
    // may be up to one such interval older than it is said to be, never younger.
    RankState sample(double elapsed_s);

  private:
    std::atomic<int64_t> step_{-1};
    std::mutex mutex_;
    int64_t begun_ = 0;
    std::string what_;
    bool inside_ = false;
    RankState sampled_;  // by the reader alone
};

}  // namespace speedrun
