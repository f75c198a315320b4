#include "util/xxhash64.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace speedrun {
namespace {

static_assert(std::endian::native == std::endian::little, "the words of XXH64 are little-endian");

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u, kPrime2 = 0xC2B2AE3D27D4EB4Fu,
                   kPrime3 = 0x165667B19E3779F9u, kPrime4 = 0x85EBCA77C2B2AE63u,
                   kPrime5 = 0x27D4EB2F165667C5u;

template <typename Word>
uint64_t load(const char* bytes) {
    Word word;
    std::memcpy(&word, bytes, sizeof(word));
    return word;
}

uint64_t round(uint64_t lane, uint64_t word) {
    return std::rotl(lane + word * kPrime2, 31) * kPrime1;
}

uint64_t tail(uint64_t hash, const char* bytes, size_t size) {
    for (; size >= 8; bytes += 8, size -= 8)
        hash = std::rotl(hash ^ round(0, load<uint64_t>(bytes)), 27) * kPrime1 + kPrime4;
    if (size >= 4) {
        hash = std::rotl(hash ^ load<uint32_t>(bytes) * kPrime1, 23) * kPrime2 + kPrime3;
        bytes += 4;
        size -= 4;
    }
    for (; size > 0; ++bytes, --size)
        hash = std::rotl(hash ^ load<unsigned char>(bytes) * kPrime5, 11) * kPrime1;
    return hash;
}

uint64_t avalanche(uint64_t hash) {
    hash = (hash ^ (hash >> 33)) * kPrime2;
    hash = (hash ^ (hash >> 29)) * kPrime3;
    return hash ^ (hash >> 32);
}

}  // namespace

// The lanes are worked on in registers: as members they would be stored after every word, as `bytes` could
// alias them.
std::string_view XxHash64::stripes(std::string_view bytes) {
    auto [a, b, c, d] = lanes_;
    for (; bytes.size() >= kStripe; bytes.remove_prefix(kStripe)) {
        a = round(a, load<uint64_t>(bytes.data()));
        b = round(b, load<uint64_t>(bytes.data() + 8));
        c = round(c, load<uint64_t>(bytes.data() + 16));
        d = round(d, load<uint64_t>(bytes.data() + 24));
    }
    lanes_ = {a, b, c, d};
    return bytes;
}

void XxHash64::update(std::string_view bytes) {
    bytes_ += bytes.size();
    if (pending_size_ > 0) {
        const size_t taken = std::min(kStripe - pending_size_, bytes.size());
        bytes.copy(pending_.data() + pending_size_, taken);
        bytes.remove_prefix(taken);
        pending_size_ += taken;
        if (pending_size_ < kStripe) return;
        stripes({pending_.data(), kStripe});
    }
    const std::string_view rest = stripes(bytes);
    pending_size_ = rest.copy(pending_.data(), kStripe);
}

uint64_t XxHash64::digest() const {
    uint64_t hash = kPrime5;
    if (bytes_ >= kStripe) {
        hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) +
               std::rotl(lanes_[3], 18);
        for (const uint64_t lane : lanes_) hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
    }
    return avalanche(tail(hash + bytes_, pending_.data(), pending_size_));
}

std::string hex64(uint64_t value) {
    std::string text(16, '0');
    for (size_t i = 0; i < text.size(); ++i) text[i] = "0123456789abcdef"[(value >> (60 - 4 * i)) & 15];
    return text;
}

}  // namespace speedrun
