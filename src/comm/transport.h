#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace speedrun {

// Moves bytes between the ranks of a run. All of its functions are called by one thread; they throw
// std::runtime_error with the library's reason.
class Transport {
  public:
    virtual ~Transport() = default;
    virtual void open() = 0;   // meets the other ranks; before anything else
    virtual void close() = 0;  // after the last message; every rank calls it
    virtual int rank() const = 0;
    virtual int size() const = 0;

    // Start a message and return its request. Messages between two ranks with equal tags (0 to 32,767)
    // arrive in the order in which they were sent. The memory must live until test() has returned true.
    virtual uint64_t send(std::span<const std::byte> bytes, int to, int tag) = 0;
    virtual uint64_t receive(std::span<std::byte> bytes, int from, int tag) = 0;
    // Whether all `requests` are done; then moved[i] is what receive i got, in bytes.
    virtual bool test(std::span<uint64_t> requests, std::span<int64_t> moved) = 0;
};

inline constexpr int kMaxTag = 32767;

}  // namespace speedrun
