#pragma once
// Ranks as threads of one process: the communicator of CPUs, over messages that stay in memory.
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "comm/cpu_communicator.h"

namespace speedrun {

// What has been sent and not received yet.
struct Mailbox {
    using Way = std::tuple<int, int, int>;  // from, to, tag
    std::mutex mutex;
    std::map<Way, std::deque<std::vector<std::byte>>> messages;
    bool broken = false;  // a rank has failed
};

class MemoryTransport final : public Transport {
  public:
    MemoryTransport(std::shared_ptr<Mailbox> mailbox, int rank, int size)
        : mailbox_(std::move(mailbox)), rank_(rank), size_(size) {}
    void open() override {}
    void close() override {}
    int rank() const override { return rank_; }
    int size() const override { return size_; }

    uint64_t send(std::span<const std::byte> bytes, int to, int tag) override {
        const std::lock_guard lock(mailbox_->mutex);
        mailbox_->messages[{rank_, to, tag}].emplace_back(bytes.begin(), bytes.end());
        return ++last_;
    }
    uint64_t receive(std::span<std::byte> bytes, int from, int tag) override {
        waiting_[++last_] = {{from, rank_, tag}, bytes};
        return last_;
    }
    bool test(std::span<uint64_t> requests, std::span<int64_t> moved) override {
        take_what_has_come();
        bool done = true;
        for (size_t i = 0; i < requests.size(); ++i) {
            done = done && !waiting_.contains(requests[i]);
            moved[i] = received_.contains(requests[i]) ? received_[requests[i]] : 0;
        }
        return done;
    }

  private:
    // In the order in which they were asked for.
    void take_what_has_come() {
        const std::lock_guard lock(mailbox_->mutex);
        if (mailbox_->broken) throw std::runtime_error("another rank has failed");
        std::erase_if(waiting_, [&](const auto& item) {
            const auto& [request, wanted] = item;
            auto& queue = mailbox_->messages[wanted.first];
            if (queue.empty()) return false;
            const std::vector<std::byte> message = std::move(queue.front());
            queue.pop_front();
            if (message.size() > wanted.second.size()) throw std::runtime_error("a message is too long");
            std::memcpy(wanted.second.data(), message.data(), message.size());
            received_[request] = static_cast<int64_t>(message.size());
            return true;
        });
    }

    std::shared_ptr<Mailbox> mailbox_;
    int rank_, size_;
    uint64_t last_ = 0;
    std::map<uint64_t, std::pair<Mailbox::Way, std::span<std::byte>>> waiting_;
    std::map<uint64_t, int64_t> received_;  // bytes
};

// Runs `body` once a rank, at the same time; rethrows what one of them throws.
inline void run_ranks(int size, const std::function<void(Communicator&)>& body) {
    const auto mailbox = std::make_shared<Mailbox>();
    std::exception_ptr failure;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank)
        threads.emplace_back([&, rank] {
            try {
                const auto communicator =
                    make_cpu_communicator(std::make_unique<MemoryTransport>(mailbox, rank, size));
                body(*communicator);
            } catch (...) {
                const std::lock_guard lock(mailbox->mutex);
                if (!mailbox->broken) failure = std::current_exception();
                mailbox->broken = true;
            }
        });
    for (std::thread& thread : threads) thread.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace speedrun
