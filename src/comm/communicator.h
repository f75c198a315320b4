#pragma once
#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace speedrun {

enum class ReduceOp { sum, max };

// A collective that has been started. Its tensors must not be touched before wait() has returned.
class Pending {
  public:
    virtual ~Pending() = default;
    // CPU tensors: returns when the result is there; throws what the collective threw. CUDA tensors: makes
    // the current stream wait, and returns at once.
    virtual void wait() = 0;
};
using Handle = std::unique_ptr<Pending>;

// What collectives have cost this rank so far.
struct CommStats {
    int64_t collectives = 0;
    int64_t bytes_sent = 0;              // to other ranks
    std::chrono::nanoseconds busy{0};    // from a collective's start to its end, queueing left out
    std::chrono::nanoseconds waited{0};  // callers blocked in wait(): the part that compute did not hide
};

// Told about the beginning and end of every collective, in the thread that runs it: what a watchdog watches.
class CollectiveObserver {
  public:
    virtual ~CollectiveObserver() = default;
    // The `sequence`-th collective of this rank (from 1), such as "reduce_scatter(attn_qkvo)".
    virtual void begin(int64_t sequence, const std::string& what) = 0;
    virtual void end(int64_t sequence) = 0;
};

// The ranks of a run, and tensors on their device. Ranks on GPUs may give tensors of the host too: such a
// collective is done when its call returns. All ranks call the same collectives in the same order; `label`
// names one in messages. Collectives run in the order in which they were started, beside the caller. Sums are
// formed in rank order, in fp32 for bf16 and rounded once: every run of the same world size gets the same
// bits. (NCCL's sums are its own: see nccl/nccl_communicator.h.)
class Communicator {
  public:
    virtual ~Communicator() = default;
    virtual int64_t rank() const = 0;
    virtual int64_t world_size() const = 0;

    // `tensor` is contiguous, 1-D; rank r's share are the next counts[r] elements (zero is allowed; their sum
    // is tensor.numel()). Afterwards this rank's share holds the sum over the ranks; the rest is as it was or
    // unspecified. fp32, bf16, int64.
    virtual Handle reduce_scatter(const at::Tensor& tensor, std::span<const int64_t> counts,
                                  std::string_view label) = 0;
    // In: this rank's share. Afterwards every share is that of its owner. Any dtype.
    virtual Handle all_gather(const at::Tensor& tensor, std::span<const int64_t> counts,
                              std::string_view label) = 0;
    // Any shape, contiguous. fp32, fp64, bf16, int64.
    virtual Handle all_reduce(const at::Tensor& tensor, ReduceOp op, std::string_view label) = 0;
    virtual Handle broadcast(const at::Tensor& tensor, int64_t root, std::string_view label) = 0;
    // Every rank sends every rank something else: send_counts[r] elements of `sent`, one rank after the
    // other, go to rank r, and receive_counts[r] elements of `received` are what rank r has for this rank;
    // what it has for itself is copied. Each two ranks agree on their counts. Both tensors are contiguous,
    // 1-D, of one dtype, any, and apart in memory.
    virtual Handle all_to_all(const at::Tensor& sent, std::span<const int64_t> send_counts,
                              const at::Tensor& received, std::span<const int64_t> receive_counts,
                              std::string_view label) = 0;
    virtual void barrier(std::string_view label) = 0;

    virtual CommStats stats() const = 0;
    // One observer at most (nullptr: none); must outlive its use.
    virtual void observe(CollectiveObserver* observer) = 0;
};

// One process: every collective is done when it is called, and sends nothing.
std::unique_ptr<Communicator> make_self_communicator();

}  // namespace speedrun
