#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <optional>
#include <span>
#include <utility>

#include "ops/cuda/kernels.h"

namespace speedrun::ops {

// A number that another step will have another of. Work that is recorded as a CUDA graph keeps the arguments
// it was recorded with, so there the number is read from where it lies when the work runs.
struct StepNumber {
    StepNumber(double number, at::Tensor where = {}) : value(number), place(std::move(where)) {}

    double value;
    at::Tensor place;  // fp64, one element, on the device of the parameters; undefined: `value` counts

    // For work on the host.
    double now() const { return place.defined() ? place.item<double>() : value; }
    // For a kernel.
    speedrun::cuda::Number number() const {
        return {value, place.defined() ? place.const_data_ptr<double>() : nullptr};
    }
};

// The numbers of a step that recorded work reads: at one place on the device from the first step to the last.
class StepNumbers {
  public:
    explicit StepNumbers(at::Device device) : device_(device) {}

    // Room for `count` of them; their index. Before the first bring().
    int64_t add(int64_t count);
    // Enqueues one copy to the device; the host waits for nothing but the copy of the step before.
    void bring(std::span<const double> numbers);
    // [count] from `index` on.
    at::Tensor part(int64_t index, int64_t count) const { return on_device_.narrow(0, index, count); }

  private:
    at::Device device_;
    int64_t count_ = 0;
    at::Tensor on_host_, on_device_;  // fp64; pinned; the same where the device is a CPU
    std::optional<c10::Event> copied_;
};

}  // namespace speedrun::ops
