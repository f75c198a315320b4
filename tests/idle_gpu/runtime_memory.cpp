// CUDA's runtime for the idle GPU: memory, which is the host's, and holds zeros where nothing was copied to
// from the host.
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "idle_gpu/device.h"

namespace speedrun::idle_gpu {
namespace {

// Memory of one kind: where it begins, and its bytes.
class Memory {
  public:
    void* take(size_t bytes) {
        void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return nullptr;
        blocks_[memory] = bytes;
        taken_ += bytes;
        return memory;
    }
    bool give_back(void* memory) {
        const auto found = blocks_.find(memory);
        if (found == blocks_.end()) return false;
        ::munmap(memory, found->second);
        taken_ -= found->second;
        blocks_.erase(found);
        return true;
    }
    bool holds(const void* address) const {
        auto after = blocks_.upper_bound(const_cast<void*>(address));
        if (after == blocks_.begin()) return false;
        --after;
        return static_cast<const char*>(address) < static_cast<const char*>(after->first) + after->second;
    }
    size_t taken() const { return taken_; }

  private:
    std::map<void*, size_t> blocks_;
    size_t taken_ = 0;
};

struct Memories {
    Memory device, pinned;
};
Memories& memories() {
    static auto* const both = new Memories;
    return *both;
}

std::string place(const void* address) {
    return memories().device.holds(address)   ? "device"
           : memories().pinned.holds(address) ? "host"
                                              : "pageable";
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaStream_t stream) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    const std::string way = place(from) + " to " + place(to);
    const bool pageable = way.find("pageable") != std::string::npos;
    if (pageable) device.counts.pageable_bytes += static_cast<int64_t>(bytes);
    if (!device.stream_of(stream).capture)
        ++device.counts.copies[way];
    else if (pageable)
        return device.refuse("a copy of pageable memory in a recording", cudaErrorStreamCaptureUnsupported,
                             &device.stream_of(stream));
    const bool stays = way == "device to device";
    return device.enqueue(stream, cudaGraphNodeTypeMemcpy, "a copy", [=] {
        if (!stays) std::memmove(to, from, bytes);
    });
}

}  // namespace
}  // namespace speedrun::idle_gpu

using namespace speedrun::idle_gpu;

extern "C" {

cudaError_t cudaMalloc(void** memory, size_t bytes) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    if (const cudaError_t error = device.check_allowed("cudaMalloc"); error != cudaSuccess)
        return told(error);
    ++device.counts.device_allocations;
    if (memories().device.taken() + bytes > kTotalMemory) return told(cudaErrorMemoryAllocation);
    *memory = memories().device.take(std::max<size_t>(bytes, 1));
    return *memory == nullptr ? told(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    if (memory == nullptr) return cudaSuccess;
    if (const cudaError_t error = device.wait("cudaFree", nullptr); error != cudaSuccess) return told(error);
    return memories().device.give_back(memory) ? cudaSuccess : told(cudaErrorInvalidValue);
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    if (const cudaError_t error = device.check_allowed("cudaHostAlloc"); error != cudaSuccess)
        return told(error);
    ++device.counts.host_allocations;
    *memory = memories().pinned.take(std::max<size_t>(bytes, 1));
    return *memory == nullptr ? told(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
    const std::scoped_lock held(Device::get().lock);
    return memories().pinned.give_back(memory) ? cudaSuccess : told(cudaErrorInvalidValue);
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
    const std::scoped_lock held(Device::get().lock);
    *total = kTotalMemory;
    *free_bytes = kTotalMemory - memories().device.taken();
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* address) {
    const std::scoped_lock held(Device::get().lock);
    *found = {};
    const std::string where = place(address);
    found->type = where == "device" ? cudaMemoryTypeDevice
                  : where == "host" ? cudaMemoryTypeHost
                                    : cudaMemoryTypeUnregistered;
    if (where != "pageable") found->devicePointer = found->hostPointer = const_cast<void*>(address);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    return told(copy(to, from, bytes, stream));
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    if (const cudaError_t error = Device::get().wait("cudaMemcpy", nullptr); error != cudaSuccess)
        return told(error);
    return told(copy(to, from, bytes, nullptr));
}
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t stream) {
    Device& device = Device::get();
    const std::scoped_lock held(device.lock);
    ++(device.stream_of(stream).capture ? device.counts.recorded : device.counts.kernels)["memset"];
    return told(device.enqueue(stream, cudaGraphNodeTypeMemset, "a memset", [] {}));
}
}
