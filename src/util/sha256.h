#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;  // OpenSSL's EVP_MD_CTX

namespace speedrun {

// SHA-256 by OpenSSL, fed in pieces: update any number of times, then hex() once. Move-only.
class Sha256 {
  public:
    Sha256();
    void update(std::string_view bytes);
    // The digest as 64 lower-case hex digits. Ends the computation: InternalError where anything follows.
    std::string hex();

  private:
    struct Free {
        void operator()(evp_md_ctx_st* context) const;
    };
    std::unique_ptr<evp_md_ctx_st, Free> context_;  // null once ended
};

std::string sha256_hex(std::string_view bytes);

// Digest of a file's bytes, read in pieces of 1 MiB. UserError if it cannot be read.
std::string sha256_file(const std::filesystem::path& file);

}  // namespace speedrun
