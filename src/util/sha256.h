#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace speedrun {

// SHA-256 (FIPS 180-4), fed in pieces: update any number of times, then hex() once.
class Sha256 {
  public:
    void update(std::string_view bytes);
    std::string
    hex();  // digest as 64 lower-case hex digits; ends the computation (InternalError if called twice)

  private:
    void block(const unsigned char* bytes);

    std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<unsigned char, 64> pending_{};
    size_t pending_size_ = 0;
    uint64_t bytes_ = 0;
    bool finished_ = false;
};

std::string sha256_hex(std::string_view bytes);

// Digest of a file's bytes, read in pieces of 1 MiB. UserError if it cannot be read.
std::string sha256_file(const std::filesystem::path& file);

}  // namespace speedrun
