#include "util/sha256.h"

#include <fmt/core.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>
#include <fstream>

#include <vector>

#include "util/error.h"
#include "util/files.h"

namespace speedrun {

void Sha256::Free::operator()(evp_md_ctx_st* context) const {
    EVP_MD_CTX_free(context);
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
    // The library is linked in: openssl.cnf is that of another installation, or of none.
    check(OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, nullptr) == 1 &&
              context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
          "OpenSSL has no SHA-256");
}

void Sha256::update(std::string_view bytes) {
    check(context_ && EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1,
          "Sha256::update after hex()");
}

std::string Sha256::hex() {
    std::array<unsigned char, 32> digest{};
    check(context_ && EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) == 1,
          "Sha256::hex called twice");
    context_.reset();
    std::string text;
    for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
    return text;
}

std::string sha256_hex(std::string_view bytes) {
    Sha256 hash;
    hash.update(bytes);
    return hash.hex();
}

std::string sha256_file(const std::filesystem::path& file) {
    if (!files::is_file(file)) throw UserError(file.string() + ": is not there, or not a regular file");
    std::ifstream in(file, std::ios::binary);
    if (!in) throw UserError(file.string() + ": cannot be read");
    Sha256 hash;
    std::vector<char> buffer(size_t{1} << 20);
    while (in) {
        in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
        hash.update({buffer.data(), static_cast<size_t>(in.gcount())});
    }
    if (in.bad()) throw UserError(file.string() + ": reading failed");
    return hash.hex();
}

}  // namespace speedrun
