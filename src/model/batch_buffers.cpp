#include "model/batch_buffers.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>

namespace speedrun {
namespace {

// host memory is only read
template <typename T>
at::Tensor view_of(const std::vector<T>& host, at::ScalarType dtype) {
    return at::from_blob(const_cast<T*>(host.data()), {static_cast<int64_t>(host.size())}, dtype);
}

DeviceBatch view_of(const Batch& batch, const HostBatch& host) {
    return {view_of(batch.inputs, at::kInt),         view_of(batch.targets, at::kLong),
            view_of(batch.cu_seqlens, at::kInt),     view_of(host.target_weights, at::kFloat),
            view_of(host.prefix_weight, at::kFloat), view_of(host.paired_cu_seqlens, at::kInt),
            view_of(host.bigram_rows, at::kInt),     view_of(host.sign_rows, at::kInt)};
}

// The parts of a batch one after the other, the widest type first so that each is aligned.
constexpr std::array parts_in_order{&DeviceBatch::targets,       &DeviceBatch::inputs,
                                    &DeviceBatch::cu_seqlens,    &DeviceBatch::target_weights,
                                    &DeviceBatch::prefix_weight, &DeviceBatch::paired_cu_seqlens,
                                    &DeviceBatch::bigram_rows,   &DeviceBatch::sign_rows};

int64_t bytes_of(const DeviceBatch& parts) {
    int64_t bytes = 0;
    for (const auto part : parts_in_order) bytes += static_cast<int64_t>((parts.*part).nbytes());
    return bytes;
}

// The parts in a buffer, of the types and sizes of others.
DeviceBatch laid_out(const at::Tensor& buffer, const DeviceBatch& like) {
    DeviceBatch parts;
    int64_t at = 0;
    for (const auto part : parts_in_order) {
        const auto bytes = static_cast<int64_t>((like.*part).nbytes());
        parts.*part = buffer.narrow(0, at, bytes).view((like.*part).scalar_type());
        at += bytes;
    }
    return parts;
}

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
    const DeviceBatch here = view_of(batch, host_);
    if (!device_.is_cuda()) {
        DeviceBatch there;
        for (const auto part : parts_in_order) there.*part = (here.*part).to(device_);
        return there;
    }
    const c10::impl::VirtualGuardImpl gpu(device_.type());
    const c10::Stream computing = gpu.getStream(device_);
    if (!copying_) copying_ = gpu.getStreamFromGlobalPool(device_);
    Set& set = next_set();
    set.copied.synchronize();  // the batch before the last one has left the pinned memory
    const int64_t bytes = bytes_of(here);
    if (!set.device.defined() || set.device.numel() < bytes) grow(set, bytes);
    const DeviceBatch pinned = laid_out(set.pinned, here);
    for (const auto part : parts_in_order) (pinned.*part).copy_(here.*part);
    set.used.block(*copying_);
    {
        const c10::StreamGuard guard(*copying_);
        set.device.narrow(0, 0, bytes).copy_(set.pinned.narrow(0, 0, bytes), /*non_blocking=*/true);
    }
    set.copied.record(*copying_);
    set.copied.block(computing);
    return laid_out(set.device, here);
}

// The new memory may still be read, under another name, by what has been enqueued.
void BatchBuffers::grow(Set& set, int64_t bytes) {
    const auto options = at::TensorOptions().dtype(at::kByte);
    set.pinned = at::empty({bytes}, options.pinned_memory(true));
    set.device = at::empty({bytes}, options.device(device_));
    set.used.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

}  // namespace speedrun
