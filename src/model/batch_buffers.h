#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <optional>
#include <vector>

#include "data/batch.h"

namespace speedrun {

// A micro-batch where the model runs.
struct DeviceBatch {
    at::Tensor inputs;      // [T] int32
    at::Tensor targets;     // [T] int64
    at::Tensor cu_seqlens;  // [entries] int32
};

// Brings micro-batches to the device. On a GPU each is one copy, from pinned memory on a stream of its own,
// into one of two sets of buffers in turn: neither the host nor the stream that computes waits for the copy
// of a batch while the one before is computed. The buffers stay allocated and grow with the longest batch.
class BatchBuffers {
  public:
    explicit BatchBuffers(at::Device device) : device_(device) {}

    // For work on the current stream that is enqueued before the next call but one. On a CPU these are views
    // of `batch`, which must outlive that work.
    DeviceBatch bring(const Batch& batch);

  private:
    struct Set {
        at::Tensor pinned, device;  // bytes
        c10::Event copied, used;
    };
    Set& next_set();
    void grow(Set& set, int64_t bytes);

    at::Device device_;
    std::vector<Set> sets_;  // two, on a GPU, from the first batch on
    size_t current_ = 0;
    std::optional<c10::Stream> copying_;
};

}  // namespace speedrun
