#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "comm/communicator.h"

namespace speedrun {

// A thread that runs collectives one after the other, in the order in which they were started, beside the
// callers. The first that throws ends them all: what it threw comes out of its wait() and of every later one.
class CollectiveThread {
  public:
    using Work = std::function<void(int64_t sequence)>;

    // Runs `open` in the thread, and rethrows what that throws.
    explicit CollectiveThread(const std::function<void()>& open);
    // Ends the thread: the collectives that have not been done never will be.
    ~CollectiveThread();

    // Queues a collective. `what` names it, as in CollectiveObserver::begin.
    Handle start(std::string what, Work work);
    // Does what is queued, then `last` in the thread, and ends it; nothing can be started after.
    void finish(const std::function<void()>& last);
    bool failed() const;
    void rethrow() const;  // what the first that failed has thrown, if one has
    // True once the destructor has begun: for the work to look at while it waits for other ranks.
    const std::atomic<bool>& stopping() const { return stopping_; }

    CommStats stats() const;  // without bytes_sent
    void observe(CollectiveObserver* observer);

  private:
    struct State;
    class Ticket;
    struct Item {
        std::string what;
        Work work;
        std::shared_ptr<State> state;
    };

    void run(const std::function<void()>& open, std::promise<void> opened);
    std::optional<Item> next();
    void perform(Item item, int64_t sequence);
    void begin(int64_t sequence, const std::string& what);
    void end(int64_t sequence);

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Item> queue_;
    bool finishing_ = false;
    std::exception_ptr failure_;
    int64_t collectives_ = 0;
    std::chrono::nanoseconds busy_{0};
    std::shared_ptr<std::atomic<int64_t>> waited_ns_;  // outlives this with the tickets
    std::atomic<bool> stopping_{false};

    std::mutex observer_mutex_;  // held while the observer is being told
    CollectiveObserver* observer_ = nullptr;
    CollectiveObserver* told_ = nullptr;  // has been told of a beginning

    std::thread thread_;
};

}  // namespace speedrun
