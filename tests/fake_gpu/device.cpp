// A GPU made of the host's memory, for machines without one: the device itself. What is asked of it is done
// when the call returns, so that streams and events have nothing to wait for. FAKE_GPUS says how many there
// are, FAKE_GPU_MIB how much memory is free on each.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

namespace speedrun::fake_gpu {
namespace {

using Clock = std::chrono::steady_clock;
using Index = c10::DeviceIndex;

thread_local Index current = 0;
thread_local c10::StreamId stream = 0;

int64_t setting(const char* name, int64_t otherwise) {
    const char* const text = std::getenv(name);
    return text == nullptr ? otherwise : std::atoll(text);
}

Index count() {
    return static_cast<Index>(setting("FAKE_GPUS", 1));
}

c10::Device with_index(c10::Device device) {
    return {at::kCUDA, device.has_index() ? device.index() : current};
}

class Guard final : public c10::impl::DeviceGuardImplInterface {
  public:
    c10::DeviceType type() const override { return at::kCUDA; }
    c10::Device exchangeDevice(c10::Device to) const override {
        return {at::kCUDA, std::exchange(current, to.index())};
    }
    c10::Device getDevice() const override { return {at::kCUDA, current}; }
    void setDevice(c10::Device to) const override { current = to.index(); }
    void uncheckedSetDevice(c10::Device to) const noexcept override { current = to.index(); }
    Index deviceCount() const noexcept override { return count(); }

    c10::Stream getStream(c10::Device on) const override { return stream_of(on, stream); }
    c10::Stream getDefaultStream(c10::Device on) const override { return stream_of(on, 0); }
    c10::Stream getStreamFromGlobalPool(c10::Device on, bool) const override {
        static c10::StreamId next = 1;
        return stream_of(on, next++);
    }
    c10::Stream exchangeStream(c10::Stream to) const override {
        return stream_of(to.device(), std::exchange(stream, to.id()));
    }
    void* getStreamNativeHandle(const c10::Stream of) const override {
        return reinterpret_cast<void*>(of.id());
    }
    bool queryStream(const c10::Stream&) const override { return true; }
    void synchronizeStream(const c10::Stream&) const override {}
    void synchronizeDevice(const Index) const override {}
    void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}

    // An event is the time at which it was recorded.
    void record(void** event, const c10::Stream&, const Index, const c10::EventFlag) const override {
        if (*event == nullptr) *event = new Clock::time_point;
        *static_cast<Clock::time_point*>(*event) = Clock::now();
    }
    void destroyEvent(void* event, const Index) const noexcept override {
        delete static_cast<Clock::time_point*>(event);
    }
    double elapsedTime(void* from, void* to, const Index) const override {
        const auto at = [](void* event) { return *static_cast<Clock::time_point*>(event); };
        return std::chrono::duration<double, std::milli>(at(to) - at(from)).count();
    }
    void block(void*, const c10::Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
    void synchronizeEvent(void*) const override {}

  private:
    static c10::Stream stream_of(c10::Device on, c10::StreamId id) {
        return c10::Stream(c10::Stream::UNSAFE, with_index(on), id);
    }
};

// Bytes given to tensors; of one GPU, as a process uses one.
struct Given {
    std::mutex lock;
    c10::CachingAllocator::Stat bytes;
};
Given& given() {
    static Given all;
    return all;
}

// New memory is full of NaNs. In front of it lies its size.
class Allocator final : public c10::DeviceAllocator {
  public:
    c10::DataPtr allocate(size_t bytes) override {
        char* const block =
            static_cast<char*>(std::aligned_alloc(kAlignment, (bytes / kAlignment + 2) * kAlignment));
        if (block == nullptr) throw std::bad_alloc();
        std::memcpy(block, &bytes, sizeof bytes);
        std::memset(block + kAlignment, 0xff, bytes);
        const std::scoped_lock held(given().lock);
        given().bytes.increase(bytes);
        return {block + kAlignment, block + kAlignment, &release, {at::kCUDA, current}};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
    bool initialized() override { return true; }
    void emptyCache(c10::MempoolId_t) override {}
    void recordStream(const c10::DataPtr&, c10::Stream) override {}
    c10::CachingDeviceAllocator::DeviceStats getDeviceStats(Index) override {
        constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
        c10::CachingDeviceAllocator::DeviceStats stats;
        const std::scoped_lock held(given().lock);
        stats.allocated_bytes[all] = stats.reserved_bytes[all] = given().bytes;
        return stats;
    }
    void resetAccumulatedStats(Index) override {}
    void resetPeakStats(Index) override {}
    std::pair<size_t, size_t> getMemoryInfo(Index) override {
        const auto bytes = static_cast<size_t>(setting("FAKE_GPU_MIB", 1 << 17)) << 20;
        return {bytes, bytes};
    }

  private:
    static constexpr size_t kAlignment = 512;
    static void release(void* memory) {
        char* const block = static_cast<char*>(memory) - kAlignment;
        size_t bytes = 0;
        std::memcpy(&bytes, block, sizeof bytes);
        std::free(block);
        const std::scoped_lock held(given().lock);
        given().bytes.decrease(bytes);
    }
};

class Hooks final : public at::CUDAHooksInterface {
  public:
    explicit Hooks(at::CUDAHooksArgs) {}
    void init() const override {}
    bool hasCUDA() const override { return true; }
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(Index) const override { return true; }
    Index deviceCount() const override { return count(); }
    int getNumGPUs() const override { return count(); }
    Index current_device() const override { return current; }
    Index getCurrentDevice() const override { return current; }
    bool isPinnedPtr(const void*) const override { return false; }
    at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
    const at::Generator& getDefaultGenerator(Index) const override {
        return at::detail::getDefaultCPUGenerator();
    }
};

Allocator allocator;

// A tensor's memory lies on `device` while this lives.
class OnDevice {
  public:
    explicit OnDevice(std::optional<at::Device> device) {
        if (device && device->has_index()) current = device->index();
    }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;
    ~OnDevice() { current = before_; }

  private:
    const Index before_ = current;
};

const c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
    const OnDevice there(device);
    return at::detail::empty_generic(size, &allocator, kKeys, dtype.value_or(at::kFloat), format);
}
at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
    const OnDevice there(device);
    return at::detail::empty_strided_generic(size, stride, &allocator, kKeys, dtype.value_or(at::kFloat));
}

[[maybe_unused]] const bool installed = [] {
    c10::SetAllocator(at::kCUDA, &allocator, /*priority=*/200);
    return true;
}();

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
    library.impl("empty.memory_format", &empty);
    library.impl("empty_strided", &empty_strided);
}

}  // namespace
}  // namespace speedrun::fake_gpu

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, speedrun::fake_gpu::Hooks)
}
namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, speedrun::fake_gpu::Guard)
}
