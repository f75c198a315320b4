#include "ops/step_numbers.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "util/error.h"

namespace speedrun::ops {

int64_t StepNumbers::add(int64_t count) {
    check(!on_device_.defined(), "the numbers of a step have their place already");
    count_ += count;
    return count_ - count;
}

void StepNumbers::bring(std::span<const double> numbers) {
    check(std::ssize(numbers) == count_, "other numbers of a step than there is room for");
    const bool gpu = device_.is_cuda();
    if (!on_device_.defined()) {
        const auto options = at::TensorOptions().dtype(at::kDouble);
        on_device_ = at::empty({count_}, options.device(device_));
        on_host_ = gpu ? at::empty({count_}, options.pinned_memory(true)) : on_device_;
        if (gpu) copied_.emplace(device_.type());
    }
    if (copied_) copied_->synchronize();
    std::ranges::copy(numbers, on_host_.mutable_data_ptr<double>());
    if (!gpu) return;
    on_device_.copy_(on_host_, /*non_blocking=*/true);
    copied_->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

}  // namespace speedrun::ops
