#include "comm/collective_thread.h"

#include <sys/prctl.h>

#include <stdexcept>
#include <utility>

#include "util/error.h"

namespace speedrun {

using Clock = std::chrono::steady_clock;

// What the thread and the caller share about one collective.
struct CollectiveThread::State {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    std::exception_ptr failure;

    void finish(std::exception_ptr thrown) {
        const std::lock_guard lock(mutex);
        done = true;
        failure = std::move(thrown);
        changed.notify_all();
    }
};

class CollectiveThread::Ticket final : public Pending {
  public:
    Ticket(std::shared_ptr<State> state, std::shared_ptr<std::atomic<int64_t>> waited_ns)
        : state_(std::move(state)), waited_ns_(std::move(waited_ns)) {}

    void wait() override {
        std::unique_lock lock(state_->mutex);
        if (!state_->done) {
            const auto began = Clock::now();
            state_->changed.wait(lock, [&] { return state_->done; });
            *waited_ns_ += std::chrono::nanoseconds(Clock::now() - began).count();
        }
        if (state_->failure) std::rethrow_exception(state_->failure);
    }

  private:
    std::shared_ptr<State> state_;
    std::shared_ptr<std::atomic<int64_t>> waited_ns_;
};

CollectiveThread::CollectiveThread(const std::function<void()>& open)
    : waited_ns_(std::make_shared<std::atomic<int64_t>>(0)) {
    std::promise<void> promise;
    std::future<void> opened = promise.get_future();
    thread_ = std::thread([this, &open](std::promise<void> to_tell) { run(open, std::move(to_tell)); },
                          std::move(promise));
    try {
        opened.get();
    } catch (...) {
        thread_.join();
        throw;
    }
}

CollectiveThread::~CollectiveThread() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
}

Handle CollectiveThread::start(std::string what, Work work) {
    auto state = std::make_shared<State>();
    const std::lock_guard lock(mutex_);
    check(!finishing_, what + " after the last collective");
    queue_.push_back({std::move(what), std::move(work), state});
    changed_.notify_all();
    return std::make_unique<Ticket>(std::move(state), waited_ns_);
}

void CollectiveThread::finish(const std::function<void()>& last) {
    Handle ended = start("finish", [&](int64_t) { last(); });
    {
        const std::lock_guard lock(mutex_);
        finishing_ = true;
        changed_.notify_all();
    }
    ended->wait();
    thread_.join();
}

bool CollectiveThread::failed() const {
    const std::lock_guard lock(mutex_);
    return failure_ != nullptr;
}

void CollectiveThread::rethrow() const {
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
}

CommStats CollectiveThread::stats() const {
    const std::lock_guard lock(mutex_);
    return {.collectives = collectives_, .busy = busy_, .waited = std::chrono::nanoseconds(*waited_ns_)};
}

void CollectiveThread::observe(CollectiveObserver* observer) {
    const std::lock_guard lock(observer_mutex_);
    observer_ = observer;
}

void CollectiveThread::run(const std::function<void()>& open, std::promise<void> opened) {
    prctl(PR_SET_NAME, "collectives");
    prctl(PR_SET_TIMERSLACK, 1000UL);  // ns: a sleep of some microseconds takes that, and not 50 more
    try {
        open();
    } catch (...) {
        opened.set_exception(std::current_exception());
        return;
    }
    opened.set_value();
    for (int64_t sequence = 1; auto item = next(); ++sequence) perform(*std::move(item), sequence);
}

// The next collective; none when there will be no more.
std::optional<CollectiveThread::Item> CollectiveThread::next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopping_ || finishing_ || !queue_.empty(); });
    if (stopping_ || queue_.empty()) return std::nullopt;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    return item;
}

// What the work holds is released before its wait ends, so that memory does not depend on which thread goes
// on.
void CollectiveThread::perform(Item item, int64_t sequence) {
    std::exception_ptr failure;
    {
        const std::lock_guard lock(mutex_);
        failure = failure_;
    }
    const auto began = Clock::now();
    if (!failure) try {
            begin(sequence, item.what);
            item.work(sequence);
            end(sequence);
        } catch (const std::exception& error) {
            failure = std::make_exception_ptr(std::runtime_error(item.what + ": " + error.what()));
        }
    {
        const std::lock_guard lock(mutex_);
        failure_ = failure;
        busy_ += Clock::now() - began;
        ++collectives_;
    }
    item.work = {};
    item.state->finish(std::move(failure));
}

void CollectiveThread::begin(int64_t sequence, const std::string& what) {
    const std::lock_guard lock(observer_mutex_);
    told_ = observer_;
    if (told_) told_->begin(sequence, what);
}

void CollectiveThread::end(int64_t sequence) {
    const std::lock_guard lock(observer_mutex_);
    if (told_ && told_ == observer_) told_->end(sequence);
}

}  // namespace speedrun
