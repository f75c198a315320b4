#include "comm/nccl/nccl_communicator.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/collective_thread.h"
#include "comm/nccl/nccl_table.h"
#include "comm/rendezvous.h"
#include "util/diagnostics.h"
#include "util/error.h"
#include "util/module.h"

namespace speedrun {
namespace {

constexpr const char* kNcclModule = "libspeedrun_nccl.so";

const NcclTable& load_nccl_table() {
    return module_table<NcclTable>(kNcclModule, kNcclTableSymbol, "the CUDA toolkit and NCCL (nccl.h)",
                                   kNcclTableVersion);
}

void require(const char* error) {
    if (error) throw std::runtime_error(error);
}
void require_usable(const char* error) {
    if (error) throw UserError(std::string("NCCL cannot start: ") + error);
}

void* current_stream(at::Device device) {
    return c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device).native_handle();
}

NcclType type_of(const at::Tensor& tensor, const std::string& what) {
    switch (tensor.scalar_type()) {
        case at::kFloat:
            return NcclType::f32;
        case at::kDouble:
            return NcclType::f64;
        case at::kBFloat16:
            return NcclType::bf16;
        case at::kLong:
            return NcclType::i64;
        default:
            throw InternalError(what + ": " + at::toString(tensor.scalar_type()) + " cannot be added up");
    }
}

// A collective on the device, which keeps its tensors allocated.
class Launched {
  public:
    Launched(const NcclTable& nccl, void* ticket, at::Tensor tensor, at::Tensor sent)
        : nccl_(nccl), ticket_(ticket), tensor_(std::move(tensor)), sent_(std::move(sent)) {}
    ~Launched() { nccl_.release(ticket_); }
    Launched(const Launched&) = delete;
    Launched& operator=(const Launched&) = delete;

    const char* wait() const { return nccl_.wait(ticket_, current_stream(tensor_.device())); }
    void* ticket() const { return ticket_; }

  private:
    const NcclTable& nccl_;
    void* ticket_;
    at::Tensor tensor_, sent_;
};

class StreamWait final : public Pending {
  public:
    StreamWait(std::shared_ptr<Launched> launched, const CollectiveThread& thread)
        : launched_(std::move(launched)), thread_(thread) {}
    void wait() override {
        thread_.rethrow();
        require(launched_->wait());
    }

  private:
    std::shared_ptr<Launched> launched_;
    const CollectiveThread& thread_;
};

class NcclCommunicator final : public Communicator {
  public:
    NcclCommunicator(const LaunchEnvironment& environment, int64_t device)
        : nccl_(load_nccl_table()),
          rank_(environment.rank),
          size_(environment.world_size),
          device_(at::kCUDA, static_cast<at::DeviceIndex>(device)),
          rendezvous_(make_rendezvous(environment)) {
        std::vector<uint8_t> id(kNcclIdBytes);
        if (rank_ == 0) require_usable(nccl_.unique_id(id.data()));
        id = rendezvous_->from_rank_0(std::move(id));
        require_usable(nccl_.create(id.data(), static_cast<int>(rank_), static_cast<int>(size_),
                                    static_cast<int>(device), &comm_));
        // A thread that has no GPU of its own would take memory of the first.
        thread_.emplace([this] { c10::impl::VirtualGuardImpl(at::kCUDA).setDevice(device_); });
    }
    ~NcclCommunicator() override {
        const bool orderly = std::uncaught_exceptions() == exceptions_ && !thread_->failed();
        if (orderly) thread_->finish([] {});
        thread_.reset();  // polls the communicator
        if (!orderly) nccl_.abort(comm_);
        if (const char* error = nccl_.destroy(comm_)) warn("{}", error);
    }
    NcclCommunicator(const NcclCommunicator&) = delete;
    NcclCommunicator& operator=(const NcclCommunicator&) = delete;

    int64_t rank() const override { return rank_; }
    int64_t world_size() const override { return size_; }

    Handle reduce_scatter(const at::Tensor& tensor, std::span<const int64_t> counts,
                          std::string_view label) override {
        if (tensor.is_cpu())
            return staged(tensor,
                          [&](const at::Tensor& there) { return reduce_scatter(there, counts, label); });
        const std::string what = named("reduce_scatter", label);
        require_shares(tensor, counts, what);
        const int64_t foreign = tensor.numel() - counts[static_cast<size_t>(rank_)];
        bytes_sent_ += foreign * static_cast<int64_t>(tensor.element_size());
        return start(what, tensor, NcclKind::reduce_scatter, type_of(tensor, what), tensor.numel(), counts);
    }
    Handle all_gather(const at::Tensor& tensor, std::span<const int64_t> counts,
                      std::string_view label) override {
        if (tensor.is_cpu())
            return staged(tensor, [&](const at::Tensor& there) { return all_gather(there, counts, label); });
        const std::string what = named("all_gather", label);
        require_shares(tensor, counts, what);
        const auto item = static_cast<int64_t>(tensor.element_size());
        const std::vector<int64_t> bytes = in_bytes(counts, item);
        bytes_sent_ += bytes[static_cast<size_t>(rank_)] * (size_ - 1);
        return start(what, tensor, NcclKind::all_gather, NcclType::bytes, tensor.numel() * item, bytes);
    }
    Handle all_reduce(const at::Tensor& tensor, ReduceOp op, std::string_view label) override {
        if (tensor.is_cpu())
            return staged(tensor, [&](const at::Tensor& there) { return all_reduce(there, op, label); });
        const std::string what = named("all_reduce", label);
        require_cuda(tensor, what);
        bytes_sent_ += static_cast<int64_t>(tensor.nbytes()) * 2 * (size_ - 1) / size_;
        return start(what, tensor, NcclKind::all_reduce, type_of(tensor, what), tensor.numel(), {}, op);
    }
    Handle broadcast(const at::Tensor& tensor, int64_t root, std::string_view label) override {
        if (tensor.is_cpu())
            return staged(tensor, [&](const at::Tensor& there) { return broadcast(there, root, label); });
        const std::string what = named("broadcast", label);
        require_cuda(tensor, what);
        check(root >= 0 && root < size_, what + ": no such root");
        const auto bytes = static_cast<int64_t>(tensor.nbytes());
        // A chain: everybody but the last passes it on.
        bytes_sent_ += (rank_ + 1) % size_ == root ? 0 : bytes;
        return start(what, tensor, NcclKind::broadcast, NcclType::bytes, bytes, {}, ReduceOp::sum, root);
    }
    // Ranks that send each other something else: one group of sends and receives.
    Handle all_to_all(const at::Tensor& sent, std::span<const int64_t> send_counts,
                      const at::Tensor& received, std::span<const int64_t> receive_counts,
                      std::string_view label) override {
        if (received.is_cpu()) {
            const at::Tensor from = sent.to(device_);
            return staged(received, [&](const at::Tensor& there) {
                return all_to_all(from, send_counts, there, receive_counts, label);
            });
        }
        const std::string what = named("all_to_all", label);
        require_shares(sent, send_counts, what);
        require_shares(received, receive_counts, what);
        check(sent.scalar_type() == received.scalar_type(), what + ": one dtype is needed");
        const auto item = static_cast<int64_t>(sent.element_size());
        const std::vector<int64_t> to = in_bytes(send_counts, item), from = in_bytes(receive_counts, item);
        bytes_sent_ += static_cast<int64_t>(sent.nbytes()) - to[static_cast<size_t>(rank_)];
        return start(what,
                     {.kind = NcclKind::all_to_all,
                      .type = NcclType::bytes,
                      .data = received.data_ptr(),
                      .count = static_cast<int64_t>(received.nbytes()),
                      .counts = from.data(),
                      .sent = sent.const_data_ptr(),
                      .send_counts = to.data()},
                     received, sent);
    }
    void barrier(std::string_view label) override {
        const at::Tensor one = at::zeros({1}, at::TensorOptions(at::kFloat).device(device_));
        start(named("barrier", label), one, NcclKind::all_reduce, NcclType::f32, 1, {});
        last_->wait();
    }

    CommStats stats() const override {
        CommStats stats = thread_->stats();
        stats.bytes_sent = bytes_sent_;
        stats.busy = std::chrono::nanoseconds(device_ns_);
        stats.waited = std::chrono::nanoseconds(0);
        return stats;
    }
    void observe(CollectiveObserver* observer) override { thread_->observe(observer); }

  private:
    static std::string named(const char* collective, std::string_view label) {
        return std::string(collective) + "(" + std::string(label) + ")";
    }

    static std::vector<int64_t> in_bytes(std::span<const int64_t> counts, int64_t item) {
        std::vector<int64_t> bytes(counts.begin(), counts.end());
        for (int64_t& count : bytes) count *= item;
        return bytes;
    }

    // Tensors of the host, such as losses, take the way over the device; the result is there when this
    // returns.
    template <class Collective>
    Handle staged(const at::Tensor& tensor, const Collective& collective) const {
        const at::Tensor there = tensor.to(device_);
        Handle handle = collective(there);
        handle->wait();
        tensor.copy_(there);
        return handle;
    }

    Handle start(const std::string& what, const at::Tensor& tensor, NcclKind kind, NcclType type,
                 int64_t count, std::span<const int64_t> counts, ReduceOp op = ReduceOp::sum,
                 int64_t root = 0) {
        return start(what,
                     {.kind = kind,
                      .type = type,
                      .max = op == ReduceOp::max,
                      .root = static_cast<int>(root),
                      .data = tensor.data_ptr(),
                      .count = count,
                      .counts = counts.data()},
                     tensor);
    }

    // Launches the collective, and queues looking for its end.
    Handle start(const std::string& what, const NcclCall& call, const at::Tensor& tensor,
                 const at::Tensor& sent = {}) {
        thread_->rethrow();
        void* ticket = nullptr;
        const std::lock_guard lock(mutex_);
        if (const char* error = nccl_.start(comm_, &call, current_stream(device_), &ticket))
            throw std::runtime_error(what + ": " + error);
        auto launched = std::make_shared<Launched>(nccl_, ticket, tensor, sent);
        last_ = thread_->start(what, [this, launched](int64_t) { watch(*launched); });
        return std::make_unique<StreamWait>(std::move(launched), *thread_);
    }

    // Returns when the collective has ended.
    void watch(const Launched& launched) {
        int done = 0;
        float ms = 0;
        while (true) {
            if (const char* error = nccl_.done(comm_, launched.ticket(), &done, &ms)) give_up(error);
            if (done != 0) break;
            if (thread_->stopping()) throw std::runtime_error("abandoned: this rank is ending");
            std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
        device_ns_ += static_cast<int64_t>(static_cast<double>(ms) * 1e6);
    }

    // Kernels that wait for a rank which is gone would keep the host waiting for them.
    [[noreturn]] void give_up(const std::string& error) {
        const std::lock_guard lock(mutex_);
        nccl_.abort(comm_);
        throw std::runtime_error(error);
    }

    static void require_cuda(const at::Tensor& tensor, const std::string& what) {
        check(tensor.is_cuda() && tensor.is_contiguous(), what + ": a contiguous CUDA tensor is needed");
    }
    void require_shares(const at::Tensor& tensor, std::span<const int64_t> counts,
                        const std::string& what) const {
        require_cuda(tensor, what);
        check(tensor.dim() == 1 && static_cast<int64_t>(counts.size()) == size_ &&
                  std::accumulate(counts.begin(), counts.end(), int64_t{0}) == tensor.numel(),
              what + ": one share a rank, and together all of a 1-D tensor");
    }

    const int exceptions_ = std::uncaught_exceptions();
    const NcclTable& nccl_;
    const int64_t rank_, size_;
    const at::Device device_;
    std::unique_ptr<Rendezvous> rendezvous_;
    void* comm_ = nullptr;
    int64_t bytes_sent_ = 0;
    std::atomic<int64_t> device_ns_{0};
    std::mutex mutex_;  // of launching and aborting
    std::optional<CollectiveThread> thread_;
    Handle last_;  // ends, on the host, with the last collective
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(const LaunchEnvironment& environment, int64_t device) {
    return std::make_unique<NcclCommunicator>(environment, device);
}

}  // namespace speedrun
