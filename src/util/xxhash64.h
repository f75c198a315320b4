#pragma once
#define XXH_STATIC_LINKING_ONLY  // the state's definition
#include <xxhash.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace speedrun {

// XXH64 (xxHash, 64 bits, seed 0), fed in pieces. To tell texts apart quickly; against somebody who makes
// them collide on purpose there is Sha256.
class XxHash64 {
  public:
    XxHash64() { XXH64_reset(&state_, 0); }
    void update(std::string_view bytes) { XXH64_update(&state_, bytes.data(), bytes.size()); }
    // The hash of what was fed so far; more may follow.
    uint64_t digest() const { return XXH64_digest(&state_); }
    bool empty() const { return state_.total_len == 0; }

  private:
    XXH64_state_t state_;
};

// 16 lower-case hex digits.
std::string hex64(uint64_t value);

}  // namespace speedrun
