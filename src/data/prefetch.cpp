#include "data/prefetch.h"

#include <utility>

#include "util/error.h"

namespace speedrun {

PrefetchingLoader::PrefetchingLoader(std::vector<std::filesystem::path> shards, DataLayout layout,
                                     std::vector<StepShape> steps, RowShare share, size_t depth)
    : steps_(std::move(steps)), depth_(depth), loader_(std::move(shards), layout, share, ReadAhead::yes) {
    check(depth_ > 0, "a prefetching loader holds at least one step");
    start();
}

PrefetchingLoader::~PrefetchingLoader() {
    stop();
}

void PrefetchingLoader::start() {
    thread_ = std::jthread([this](const std::stop_token& stop) {
        try {
            produce(stop);
        } catch (...) {
            const std::lock_guard lock(mutex_);
            error_ = std::current_exception();
            changed_.notify_all();
        }
    });
}

void PrefetchingLoader::stop() {
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
}

void PrefetchingLoader::produce(const std::stop_token& stop) {
    while (!stop.stop_requested() && loader_.position().step < static_cast<int64_t>(steps_.size())) {
        Prepared next{loader_.next_step(steps_[static_cast<size_t>(loader_.position().step)]), {}};
        next.after = loader_.position();
        std::unique_lock lock(mutex_);
        if (!changed_.wait(lock, stop, [&] { return ready_.size() < depth_; })) return;
        ready_.push_back(std::move(next));
        changed_.notify_all();
    }
}

std::vector<Batch> PrefetchingLoader::next_step() {
    check(position_.step < static_cast<int64_t>(steps_.size()), "a step past the last of the schedule");
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || error_; });
    if (ready_.empty()) std::rethrow_exception(error_);
    Prepared prepared = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
    position_ = prepared.after;
    return std::move(prepared.batches);
}

void PrefetchingLoader::seek(const LoaderPosition& position) {
    stop();
    ready_.clear();
    error_ = nullptr;
    try {
        loader_.seek(position);
    } catch (...) {
        error_ = std::current_exception();  // no thread runs: next_step must not wait for one
        throw;
    }
    position_ = position;
    start();
}

}  // namespace speedrun
