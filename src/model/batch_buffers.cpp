#include "model/batch_buffers.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace speedrun {
namespace {

// host memory is only read
template <typename T>
at::Tensor view_of(const std::vector<T>& host, at::ScalarType dtype) {
    return at::from_blob(const_cast<T*>(host.data()), {static_cast<int64_t>(host.size())}, dtype);
}

// The parts of a batch one after the other, the widest type first so that each is aligned.
class Layout {
  public:
    explicit Layout(const Batch& batch)
        : tokens_(static_cast<int64_t>(batch.inputs.size())),
          entries_(static_cast<int64_t>(batch.cu_seqlens.size())) {}

    int64_t bytes() const { return 12 * tokens_ + 4 * entries_; }
    DeviceBatch parts(const at::Tensor& buffer) const {
        const auto part = [&](int64_t at, int64_t bytes, at::ScalarType dtype) {
            return buffer.narrow(0, at, bytes).view(dtype);
        };
        return {.inputs = part(8 * tokens_, 4 * tokens_, at::kInt),
                .targets = part(0, 8 * tokens_, at::kLong),
                .cu_seqlens = part(12 * tokens_, 4 * entries_, at::kInt)};
    }

  private:
    int64_t tokens_, entries_;
};

}  // namespace

BatchBuffers::Set& BatchBuffers::next_set() {
    const c10::impl::VirtualGuardImpl gpu(device_.type());
    if (sets_.empty())
        for (int i = 0; i < 2; ++i)
            sets_.push_back({{}, {}, c10::Event(device_.type()), c10::Event(device_.type())});
    sets_[current_].used.record(
        gpu.getStream(device_));  // all that reads the batch before this one is enqueued
    current_ = 1 - current_;
    return sets_[current_];
}

DeviceBatch BatchBuffers::bring(const Batch& batch) {
    const at::Tensor inputs = view_of(batch.inputs, at::kInt), targets = view_of(batch.targets, at::kLong),
                     cu_seqlens = view_of(batch.cu_seqlens, at::kInt);
    if (!device_.is_cuda()) return {inputs.to(device_), targets.to(device_), cu_seqlens.to(device_)};
    const c10::impl::VirtualGuardImpl gpu(device_.type());
    const c10::Stream computing = gpu.getStream(device_);
    if (!copying_) copying_ = gpu.getStreamFromGlobalPool(device_);
    Set& set = next_set();
    set.copied.synchronize();  // the batch before the last one has left the pinned memory
    const Layout layout(batch);
    if (!set.device.defined() || set.device.numel() < layout.bytes()) grow(set, layout.bytes());
    const DeviceBatch pinned = layout.parts(set.pinned);
    pinned.inputs.copy_(inputs);
    pinned.targets.copy_(targets);
    pinned.cu_seqlens.copy_(cu_seqlens);
    set.used.block(*copying_);
    {
        const c10::StreamGuard guard(*copying_);
        set.device.narrow(0, 0, layout.bytes())
            .copy_(set.pinned.narrow(0, 0, layout.bytes()), /*non_blocking=*/true);
    }
    set.copied.record(*copying_);
    set.copied.block(computing);
    return layout.parts(set.device);
}

// The new memory may still be read, under another name, by what has been enqueued.
void BatchBuffers::grow(Set& set, int64_t bytes) {
    const auto options = at::TensorOptions().dtype(at::kByte);
    set.pinned = at::empty({bytes}, options.pinned_memory(true));
    set.device = at::empty({bytes}, options.device(device_));
    set.used.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

}  // namespace speedrun
