// A file written in pieces, by way of the page cache and past it.
#include "util/positioned_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "support/file_text.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

constexpr size_t kBlock = PositionedFile::block;

std::vector<std::byte> random_bytes(size_t count) {
    std::mt19937_64 random(3);
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
}

// Pieces of all lengths that follow each other, from memory that lies in a block as they do in the file, or
// `shift` bytes further on.
void expect_written(const std::filesystem::path& path, size_t shift) {
    const std::vector<size_t> lengths{1,          kBlock - 1, kBlock,         kBlock + 1,     3 * kBlock,
                                      10'000'019, 5,          7 * kBlock + 3, 2 * kBlock - 1, 12};
    size_t total = 0;
    for (const size_t length : lengths) total += length;
    const std::vector<std::byte> bytes = random_bytes(total);
    std::vector<std::byte> memory(bytes.size() + 2 * kBlock);
    const size_t first = (kBlock - reinterpret_cast<uintptr_t>(memory.data()) % kBlock) % kBlock + shift;
    std::ranges::copy(bytes, memory.begin() + static_cast<ptrdiff_t>(first));
    PositionedFile file(path, total);
    size_t at = 0;
    for (const size_t length : lengths) {
        file.write(std::span(memory).subspan(first + at, length), at);
        at += length;
    }
    file.sync();
    const std::string found = contents(path);
    ASSERT_EQ(found.size(), total);
    EXPECT_EQ(std::memcmp(found.data(), bytes.data(), total), 0) << "shift " << shift;
}

TEST(PositionedFile, PiecesAreWhereTheyBelong) {
    const TemporaryFolder folder;
    for (const size_t shift : {size_t{0}, size_t{1}, size_t{512}, kBlock - 1})
        expect_written(folder / ("file" + std::to_string(shift)), shift);
}

// A file system in memory may know no other way than its cache.
TEST(PositionedFile, InMemoryToo) {
    const std::filesystem::path memory = "/dev/shm";
    if (!std::filesystem::is_directory(memory)) GTEST_SKIP() << "no file system in memory here";
    const std::filesystem::path path = memory / ("speedrun_test_" + std::to_string(::getpid()));
    expect_written(path, 0);
    std::filesystem::remove(path);
}

}  // namespace
}  // namespace speedrun
