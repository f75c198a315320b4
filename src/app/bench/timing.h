#pragma once
// What benches measure with.
#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <chrono>
#include <functional>
#include <optional>
#include <vector>

#include "config/config.h"
#include "data/batch.h"

namespace speedrun {

// The upper one of two. At least one value.
double median(std::vector<double> values);

// A moment of a device: for a CPU of the host's clock, for a GPU one that its current stream passes after all
// that it has been given so far.
class Moment {
  public:
    explicit Moment(at::Device device);

    // Milliseconds since `earlier`, of the same device. On a GPU waits until the stream has come here.
    double ms_since(const Moment& earlier) const;

  private:
    std::chrono::steady_clock::time_point time_;
    std::optional<c10::Event> event_;
};

// Milliseconds of a call: the median of batches, each long enough for the clock, after calls that warm up.
// A GPU gets a batch at once. About `budget_ms` are spent on it, or six calls.
double time_call(const std::function<void()>& call, at::Device device, double budget_ms);

// How many kernels a call gives a GPU: recorded, not run. 0 on a CPU; nothing where it cannot be recorded.
std::optional<int64_t> kernels_of(const std::function<void()>& call, at::Device device);

// Random tokens in documents of `document` tokens: the shape of a micro-batch without a data set.
Batch synthetic_batch(const Config& config, int64_t tokens, int64_t document);

}  // namespace speedrun
