#include "util/sha256.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "util/error.h"

namespace speedrun {
namespace {

// Vectors of FIPS 180-4 / NIST CAVP.
TEST(Sha256, PublishedVectors) {
    EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    EXPECT_EQ(sha256_hex(std::string(1000000, 'a')),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesOfAnySizeGiveTheSameDigest) {
    for (size_t length : {0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 300}) {
        std::string text;
        for (size_t i = 0; i < length; ++i) text.push_back(static_cast<char>(i * 7));
        const std::string whole = sha256_hex(text);
        for (size_t piece : {1, 3, 64, 65}) {
            Sha256 hash;
            for (size_t at = 0; at < length; at += piece)
                hash.update(std::string_view(text).substr(at, piece));
            EXPECT_EQ(hash.hex(), whole) << length << " bytes in pieces of " << piece;
        }
    }
}

TEST(Sha256, FilesAndMissingFiles) {
    const auto file = std::filesystem::path(::testing::TempDir()) / "speedrun_sha256_test";
    std::ofstream(file) << "abc";
    EXPECT_EQ(sha256_file(file), sha256_hex("abc"));
    std::filesystem::remove(file);
    EXPECT_THROW(sha256_file(file), UserError);
    EXPECT_THROW(sha256_file(::testing::TempDir()), UserError);
}

TEST(Sha256, UseAfterTheEndIsABug) {
    Sha256 hash;
    hash.hex();
    EXPECT_THROW(hash.update("x"), InternalError);
    EXPECT_THROW(hash.hex(), InternalError);
}

}  // namespace
}  // namespace speedrun
