#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace speedrun {

// XXH64 (Yann Collet's xxHash, 64 bits, seed 0), fed in pieces. To tell texts apart quickly; against somebody
// who makes them collide on purpose there is Sha256.
class XxHash64 {
  public:
    void update(std::string_view bytes);
    // Of what was fed so far; more may follow.
    uint64_t digest() const;
    bool empty() const { return bytes_ == 0; }

  private:
    std::string_view stripes(std::string_view bytes);  // takes whole stripes, returns the rest

    static constexpr size_t kStripe = 32;
    std::array<uint64_t, 4> lanes_{0x60EA27EEADC0B5D6u, 0xC2B2AE3D27D4EB4Fu, 0, 0x61C8864E7A143579u};
    std::array<char, kStripe> pending_{};
    size_t pending_size_ = 0;
    uint64_t bytes_ = 0;
};

// 16 lower-case hex digits.
std::string hex64(uint64_t value);

}  // namespace speedrun
