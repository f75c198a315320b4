#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <optional>
#include <vector>

#include "data/batch.h"

namespace speedrun {

// A micro-batch where the model runs.
struct DeviceBatch {
    at::Tensor inputs;             // [T] int32
    at::Tensor targets;            // [T] int64
    at::Tensor cu_seqlens;         // [entries] int32
    at::Tensor target_weights;     // [K] fp32
    at::Tensor prefix_weight;      // [1] fp32, or none
    at::Tensor paired_cu_seqlens;  // [entries] int32, or none: document starts of paired heads
    at::Tensor bigram_rows;        // [T] int32, or none
    at::Tensor sign_rows;          // [T] int32, or none
};

// What goes to the device with a batch.
struct HostBatch {
    std::vector<float> target_weights, prefix_weight;
    std::vector<int32_t> paired_cu_seqlens, bigram_rows, sign_rows;
};

// Brings micro-batches to the device. On a GPU each is one copy, from pinned memory on a stream of its own,
// into one of two sets of buffers in turn: neither the host nor the stream that computes waits for the copy
// of a batch while the one before is computed. The buffers stay allocated and grow with the longest batch.
class BatchBuffers {
  public:
    explicit BatchBuffers(at::Device device) : device_(device) {}

    // To be filled before bring().
    HostBatch& host() { return host_; }
    // For work on the current stream that is enqueued before the next call but one. On a CPU these are views
    // of `batch`, which must outlive that work, and of host(), which must not change before its end.
    DeviceBatch bring(const Batch& batch);

  private:
    struct Set {
        at::Tensor pinned, device;  // bytes
        c10::Event copied, used;
    };
    Set& next_set();
    void grow(Set& set, int64_t bytes);

    at::Device device_;
    HostBatch host_;
    std::vector<Set> sets_;  // two, on a GPU, from the first batch on
    size_t current_ = 0;
    std::optional<c10::Stream> copying_;
};

}  // namespace speedrun
