#include "model/arena.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>

#include "util/error.h"

namespace speedrun {
namespace {

constexpr int64_t kAlignment = 512;  // bytes: as CUDA's allocator, and a multiple of a cache line
constexpr int64_t kEndless = int64_t{1} << 50;

int64_t aligned(int64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

int64_t bytes_of(const std::vector<int64_t>& shape, at::ScalarType dtype) {
    auto bytes = static_cast<int64_t>(at::elementSize(dtype));
    for (const int64_t size : shape) bytes *= size;
    return bytes;
}

}  // namespace

Arena::Arena(at::Device device) : device_(device) {
    if (device.is_meta()) reserve(kEndless);
}

void Arena::reserve(int64_t bytes) {
    check(!piece_.defined() && others_bytes_ == 0, "Arena::reserve after something was acquired");
    piece_ = at::empty({aligned(bytes)}, at::TensorOptions().dtype(at::kByte).device(device_));
    gaps_ = {{0, aligned(bytes)}};
}

at::Tensor Arena::acquire(const std::vector<int64_t>& shape, at::ScalarType dtype) {
    const int64_t bytes = bytes_of(shape, dtype);
    if (at::Tensor found = cut(shape, dtype, bytes); found.defined()) return found;
    auto& free = others_[{shape, dtype}];
    if (free.empty()) {
        others_bytes_ += bytes;
        return at::empty(shape, at::TensorOptions().dtype(dtype).device(device_));
    }
    at::Tensor tensor = std::move(free.back());
    free.pop_back();
    return tensor;
}

at::Tensor Arena::cut(const std::vector<int64_t>& shape, at::ScalarType dtype, int64_t bytes) {
    const int64_t taken = aligned(bytes);
    const auto gap = std::ranges::find_if(gaps_, [&](const auto& one) { return one.second >= taken; });
    if (gap == gaps_.end()) return {};
    const auto [begin, size] = *gap;
    gaps_.erase(gap);
    if (size > taken) gaps_[begin + taken] = size - taken;
    highest_ = std::max(highest_, begin + taken);
    return piece_.narrow(0, begin, bytes).view(dtype).view(shape);
}

void Arena::release(at::Tensor tensor) {
    if (!piece_.defined() || !tensor.storage().is_alias_of(piece_.storage())) {
        others_[{tensor.sizes().vec(), tensor.scalar_type()}].push_back(std::move(tensor));
        return;
    }
    int64_t begin = tensor.storage_offset() * tensor.element_size();
    int64_t size = aligned(static_cast<int64_t>(tensor.nbytes()));
    const auto after = gaps_.find(begin + size);
    if (after != gaps_.end()) {
        size += after->second;
        gaps_.erase(after);
    }
    if (const auto next = gaps_.lower_bound(begin); next != gaps_.begin())
        if (const auto before = std::prev(next); before->first + before->second == begin) {
            begin = before->first;
            size += before->second;
        }
    gaps_[begin] = size;
}

int64_t Arena::allocated_bytes() const {
    const int64_t piece = !piece_.defined() ? 0 : device_.is_meta() ? highest_ : piece_.numel();
    return piece + others_bytes_;
}

}  // namespace speedrun
