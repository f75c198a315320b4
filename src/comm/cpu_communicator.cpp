#include "comm/cpu_communicator.h"

#include <ATen/ATen.h>

#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "comm/collective_thread.h"
#include "comm/exchange.h"
#include "util/diagnostics.h"
#include "util/error.h"

namespace speedrun {
namespace {

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
    return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

Element element_of(const at::Tensor& tensor, const std::string& what) {
    switch (tensor.scalar_type()) {
        case at::kFloat:
            return Element::f32;
        case at::kDouble:
            return Element::f64;
        case at::kBFloat16:
            return Element::bf16;
        case at::kLong:
            return Element::i64;
        default:
            throw InternalError(what + ": " + at::toString(tensor.scalar_type()) + " cannot be added up");
    }
}

std::string named(const char* collective, std::string_view label) {
    return std::string(collective) + "(" + std::string(label) + ")";
}

int tag_of(int64_t sequence) {
    return static_cast<int>(sequence % (kMaxTag + 1));
}

class CpuCommunicator final : public Communicator {
  public:
    explicit CpuCommunicator(std::unique_ptr<Transport> transport)
        : transport_(std::move(transport)), thread_([this] { transport_->open(); }) {
        exchange_.emplace(*transport_, thread_.stopping());
    }
    ~CpuCommunicator() override {
        if (std::uncaught_exceptions() > exceptions_ || thread_.failed()) return;
        try {
            thread_.finish([this] { transport_->close(); });
        } catch (const std::exception& error) {
            warn("{}", error.what());
        }
    }
    CpuCommunicator(const CpuCommunicator&) = delete;
    CpuCommunicator& operator=(const CpuCommunicator&) = delete;

    int64_t rank() const override { return transport_->rank(); }
    int64_t world_size() const override { return transport_->size(); }

    Handle reduce_scatter(const at::Tensor& tensor, std::span<const int64_t> counts,
                          std::string_view label) override {
        const std::string what = named("reduce_scatter", label);
        require_shares(tensor, counts, what);
        return start(what, [this, tensor, element = element_of(tensor, what),
                            owned = std::vector(counts.begin(), counts.end())](int64_t sequence) {
            exchange_->reduce_scatter(bytes_of(tensor), element, ReduceOp::sum, owned, tag_of(sequence));
        });
    }
    Handle all_gather(const at::Tensor& tensor, std::span<const int64_t> counts,
                      std::string_view label) override {
        const std::string what = named("all_gather", label);
        require_shares(tensor, counts, what);
        return start(what,
                     [this, tensor, owned = std::vector(counts.begin(), counts.end())](int64_t sequence) {
                         exchange_->all_gather(bytes_of(tensor), static_cast<int64_t>(tensor.element_size()),
                                               owned, tag_of(sequence));
                     });
    }
    Handle all_reduce(const at::Tensor& tensor, ReduceOp op, std::string_view label) override {
        const std::string what = named("all_reduce", label);
        require_cpu(tensor, what);
        return start(what, [this, tensor, op, element = element_of(tensor, what)](int64_t sequence) {
            exchange_->all_reduce(bytes_of(tensor), element, op, tag_of(sequence));
        });
    }
    Handle broadcast(const at::Tensor& tensor, int64_t root, std::string_view label) override {
        const std::string what = named("broadcast", label);
        require_cpu(tensor, what);
        check(root >= 0 && root < world_size(), what + ": no such root");
        return start(what, [this, tensor, root](int64_t sequence) {
            exchange_->broadcast(bytes_of(tensor), static_cast<int>(root), tag_of(sequence));
        });
    }
    Handle all_to_all(const at::Tensor& sent, std::span<const int64_t> send_counts,
                      const at::Tensor& received, std::span<const int64_t> receive_counts,
                      std::string_view label) override {
        const std::string what = named("all_to_all", label);
        require_shares(sent, send_counts, what);
        require_shares(received, receive_counts, what);
        check(sent.scalar_type() == received.scalar_type(), what + ": one dtype is needed");
        return start(what,
                     [this, sent, received, to = std::vector(send_counts.begin(), send_counts.end()),
                      from = std::vector(receive_counts.begin(), receive_counts.end())](int64_t sequence) {
                         exchange_->all_to_all(bytes_of(sent), to, bytes_of(received), from,
                                               static_cast<int64_t>(sent.element_size()), tag_of(sequence));
                     });
    }
    void barrier(std::string_view label) override {
        start(named("barrier", label), [this](int64_t sequence) {
            exchange_->barrier(tag_of(sequence));
        })->wait();
    }

    CommStats stats() const override {
        CommStats stats = thread_.stats();
        stats.bytes_sent = exchange_->bytes_sent();
        return stats;
    }
    void observe(CollectiveObserver* observer) override { thread_.observe(observer); }

  private:
    Handle start(const std::string& what, CollectiveThread::Work work) {
        return thread_.start(what, std::move(work));
    }
    static void require_cpu(const at::Tensor& tensor, const std::string& what) {
        check(tensor.is_cpu() && tensor.is_contiguous(), what + ": a contiguous CPU tensor is needed");
    }
    void require_shares(const at::Tensor& tensor, std::span<const int64_t> counts,
                        const std::string& what) const {
        require_cpu(tensor, what);
        int64_t sum = 0;
        for (const int64_t count : counts) {
            check(count >= 0, what + ": a negative share");
            sum += count;
        }
        check(
            tensor.dim() == 1 && static_cast<int64_t>(counts.size()) == world_size() && sum == tensor.numel(),
            what + ": one share a rank, and together all of a 1-D tensor");
    }

    const int exceptions_ = std::uncaught_exceptions();
    std::unique_ptr<Transport> transport_;
    std::optional<Exchange> exchange_;  // made once the transport is open; used in the thread
    CollectiveThread thread_;
};

}  // namespace

std::unique_ptr<Communicator> make_cpu_communicator(std::unique_ptr<Transport> transport) {
    return std::make_unique<CpuCommunicator>(std::move(transport));
}

}  // namespace speedrun
