#pragma once
// TrainLoader behind a thread.
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "data/loader.h"

namespace speedrun {

// The same sequence as TrainLoader's, bit for bit, prepared ahead by a thread; the shard after the current
// one is opened and indexed ahead by another. For use by one thread. May be destroyed at any moment.
class PrefetchingLoader {
  public:
    // steps[i] is the shape of step i. `depth` steps are held ready.
    PrefetchingLoader(std::vector<std::filesystem::path> shards, DataLayout layout,
                      std::vector<StepShape> steps, RowShare share = {}, size_t depth = 2);
    ~PrefetchingLoader();
    PrefetchingLoader(const PrefetchingLoader&) = delete;
    PrefetchingLoader& operator=(const PrefetchingLoader&) = delete;

    // This share of the next step. Rethrows what the thread met when its step's turn has come; InternalError
    // past the last.
    std::vector<Batch> next_step();

    // After the last step handed out, whatever has been prepared since.
    LoaderPosition position() const { return position_; }
    void seek(const LoaderPosition& position);

  private:
    struct Prepared {
        std::vector<Batch> batches;
        LoaderPosition after;
    };
    void start();
    void stop();
    void produce(const std::stop_token& stop);

    const std::vector<StepShape> steps_;
    const size_t depth_;
    LoaderPosition position_;
    TrainLoader loader_;  // the thread's while it runs

    std::mutex mutex_;  // guards the two below
    std::condition_variable_any changed_;
    std::deque<Prepared> ready_;
    std::exception_ptr error_;

    std::jthread thread_;
};

}  // namespace speedrun
