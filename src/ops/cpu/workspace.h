#pragma once
#include <cstddef>
#include <memory>
#include <new>

namespace speedrun::ops::cpu {

// Uninitialised 64-byte aligned memory that only grows. As a thread_local it makes repeated calls free of
// allocation.
class Workspace {
  public:
    // Room for `count` elements; what was in it before is lost.
    template <class T>
    T* get(std::size_t count) {
        const std::size_t bytes = count * sizeof(T);
        if (bytes > size_) {
            memory_.reset();
            memory_.reset(static_cast<std::byte*>(::operator new(bytes, alignment)));
            size_ = bytes;
        }
        return reinterpret_cast<T*>(memory_.get());
    }

  private:
    static constexpr std::align_val_t alignment{64};
    struct Free {
        void operator()(std::byte* p) const { ::operator delete(p, alignment); }
    };
    std::unique_ptr<std::byte, Free> memory_;
    std::size_t size_ = 0;
};

}  // namespace speedrun::ops::cpu
