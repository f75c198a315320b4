#include "data/shard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <random>

#include "data/indexed_shard.h"
#include "data/shard_identity.h"
#include "support/expect_error.h"
#include "support/golden_inputs.h"
#include "support/temporary_folder.h"
#include "util/sha256.h"

namespace speedrun {
namespace {

// A file with any header and body, right or wrong.
void write_raw(const std::filesystem::path& path, std::array<int32_t, 3> head, size_t header_bytes,
               size_t body_bytes) {
    std::vector<char> bytes(header_bytes + body_bytes, 0);
    if (!bytes.empty()) std::memcpy(bytes.data(), head.data(), std::min(sizeof(head), bytes.size()));
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

TEST(Shard, RoundTrip) {
    const TemporaryFolder dir;
    const std::vector<uint16_t> tokens{50256, 1, 2, 3, 65535};
    write_shard(dir / "a.bin", tokens);
    const Shard shard(dir / "a.bin");
    EXPECT_TRUE(std::ranges::equal(shard.tokens(), tokens));
    EXPECT_EQ(std::filesystem::file_size(dir / "a.bin"), 1034u);
    Shard moved(Shard(dir / "a.bin"));
    moved = Shard(dir / "a.bin");
    EXPECT_EQ(moved.tokens().size(), 5u);
}

TEST(Shard, EmptyOne) {
    const TemporaryFolder dir;
    write_shard(dir / "a.bin", {});
    const Shard shard(dir / "a.bin");
    EXPECT_TRUE(shard.tokens().empty());
    EXPECT_NO_THROW(shard.check_tokens(1));
}

TEST(Shard, IsNotOverwrittenSilently) {
    const TemporaryFolder dir;
    write_shard(dir / "a.bin", std::vector<uint16_t>{1});
    expect_user_error([&] { write_shard(dir / "a.bin", std::vector<uint16_t>{2}); }, {"a.bin", "exists"});
    EXPECT_EQ(Shard(dir / "a.bin").tokens()[0], 1);
    write_shard(dir / "a.bin", std::vector<uint16_t>{2}, Overwrite::yes);
    EXPECT_EQ(Shard(dir / "a.bin").tokens()[0], 2);
}

TEST(Shard, GoldenShardsAreByteForByteTheReferences) {
    const TemporaryFolder dir;
    write_shard(dir / "t1", golden::train_tokens_1());
    write_shard(dir / "t2", golden::train_tokens_2());
    write_shard(dir / "v", golden::val_tokens());
    EXPECT_EQ(sha256_file(dir / "t1"), "b12d1dcc05e4236d37bb92e9279d38c8168c898d76f1d34caa601db85fa3b682");
    EXPECT_EQ(sha256_file(dir / "t2"), "f8e3e31ce19ddcd6d7ff43123c3300efc4f870da4e793a02de4efbe4f4e2d76e");
    EXPECT_EQ(sha256_file(dir / "v"), "0c58f49b10d46e6a08adf93f337637e504d0dd73008d1107646bdac58b420ced");
}

TEST(Shard, GoldenParametersAreTheReferences) {
    Sha256 digest;  // of all values in order, as little-endian float32; the figure is numpy's
    for (const auto& p : golden::init_params()) {
        digest.update({reinterpret_cast<const char*>(p.values.data()), p.values.size() * sizeof(float)});
    }
    EXPECT_EQ(digest.hex(), "43dd5a5ca09eda732ba3efd258a43574c88156db42c843ec8b289cfe37a56906");
}

TEST(Shard, BadFilesAreNamedWithOffsetFoundAndExpected) {
    const TemporaryFolder dir;
    const auto path = dir / "bad.bin";
    const auto open = [&] { Shard{path}; };
    expect_user_error(open, {"bad.bin", "cannot be opened", "No such file"});
    write_raw(path, {}, 0, 0);
    expect_user_error(open, {"bad.bin", "has 0 bytes", "1024"});
    write_raw(path, {kShardMagic, 1, 0}, 1023, 0);
    expect_user_error(open, {"1023 bytes", "1024"});
    write_raw(path, {20240519, 1, 4}, 1024, 8);
    expect_user_error(open, {"byte 0", "magic", "20240519", "20240520"});
    write_raw(path, {kShardMagic, 2, 4}, 1024, 8);
    expect_user_error(open, {"byte 4", "version is 2", "expected 1"});
    write_raw(path, {kShardMagic, 1, 5}, 1024, 8);
    expect_user_error(open, {"byte 8", "count is 5", "expected 4", "1032"});
    write_raw(path, {kShardMagic, 1, 4}, 1024, 9);
    expect_user_error(open, {"byte 8", "4 and a half"});
    write_raw(path, {kShardMagic, 1, -4}, 1024, 8);
    expect_user_error(open, {"count is -4"});
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    expect_user_error(open, {"not a regular file"});
}

TEST(Shard, TokenOutsideTheVocabulary) {
    const TemporaryFolder dir;
    std::vector<uint16_t> tokens(1000, 499);
    write_shard(dir / "good.bin", tokens);
    EXPECT_NO_THROW(Shard(dir / "good.bin").check_tokens(500));
    tokens[777] = 500;
    tokens[900] = 501;
    write_shard(dir / "bad.bin", tokens);
    expect_user_error([&] { Shard(dir / "bad.bin").check_tokens(500); },
                      {"bad.bin", "byte 2578", "token is 500", "vocabulary of 500"});
    expect_user_error([&] { load_indexed_shard(dir / "bad.bin", {500, 499}); }, {"byte 2578"});
}

TEST(Shard, WithoutDocumentStart) {
    const TemporaryFolder dir;
    write_shard(dir / "a.bin", std::vector<uint16_t>{1, 2, 3});
    expect_user_error(
        [&] {
            load_indexed_shard(dir / "a.bin", {500, 499});
        },
        {"a.bin", "499", "none of its 3"});
}

TEST(Shard, FindSortsAndNamesThePatternWhenNothingMatches) {
    const TemporaryFolder dir;
    for (const char* name : {"t_2.bin", "t_10.bin", "t_1.bin", "v_1.bin"}) write_shard(dir / name, {});
    const auto found = find_shards(dir / "t_*.bin");
    ASSERT_EQ(found.size(), 3u);
    EXPECT_EQ(found[0].filename(), "t_1.bin");
    EXPECT_EQ(found[1].filename(), "t_10.bin");
    EXPECT_EQ(found[2].filename(), "t_2.bin");
    expect_user_error([&] { find_shards(dir / "x_*.bin"); }, {"x_*.bin"});
}

// Python's sorted(glob.glob("*/t.bin")): '-' comes before '/'.
TEST(Shard, ThoseOfSeveralFoldersAreInTheOrderOfTheirNamesAsTexts) {
    const TemporaryFolder dir;
    for (const char* folder : {"a", "a-b"}) {
        std::filesystem::create_directories(dir / folder);
        write_shard(dir / folder / "t.bin", {});
    }
    EXPECT_EQ(find_shards(dir / "*/t.bin"), (std::vector{dir / "a-b" / "t.bin", dir / "a" / "t.bin"}));
}

TEST(Shard, AFileOfThatVeryNameComesBeforeThePattern) {
    const TemporaryFolder dir;
    write_shard(dir / "x[1].bin", {});
    EXPECT_EQ(find_shards(dir / "x[1].bin"), std::vector{dir / "x[1].bin"});
    write_shard(dir / "x1.bin", {});
    EXPECT_EQ(find_shards(dir / "x[1].bin"), std::vector{dir / "x[1].bin"});
    EXPECT_EQ(find_shards(dir / "x[12].bin"), std::vector{dir / "x1.bin"});
}

TEST(ShardIdentity, TellsContentsApartAndNotNames) {
    const TemporaryFolder dir;
    std::vector<uint16_t> tokens(300'000);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint16_t>(i * 31 + i / 65'536);
    write_shard(dir / "a.bin", tokens);
    write_shard(dir / "b.bin", tokens);
    tokens.back() ^= 1;
    write_shard(dir / "c.bin", tokens);
    tokens.pop_back();
    write_shard(dir / "d.bin", tokens);
    const auto all = identify_shards(
        std::vector<std::filesystem::path>{dir / "a.bin", dir / "b.bin", dir / "c.bin", dir / "d.bin"});
    EXPECT_EQ(all[0].bytes, std::filesystem::file_size(dir / "a.bin"));
    EXPECT_TRUE(all[0].same_content(all[1]));
    EXPECT_FALSE(all[0] == all[1]);
    EXPECT_FALSE(all[0].same_content(all[2])) << "the last token differs";
    EXPECT_FALSE(all[2].same_content(all[3]));
    EXPECT_NE(shards_text(all).find("4 shards, a.bin to d.bin, "), std::string::npos) << shards_text(all);
    expect_user_error([&] { identify_shards(std::vector<std::filesystem::path>{dir / "none"}); }, {"none"});
}

TEST(BosIndex, FindsEveryPositionAtAnyAlignment) {
    std::mt19937 random(1);
    for (size_t size = 0; size < 300; ++size) {
        std::vector<uint16_t> tokens(size);
        std::vector<uint32_t> expected;
        for (size_t i = 0; i < size; ++i) {
            tokens[i] = random() % 8 == 0 ? 50256 : static_cast<uint16_t>(random() % 50256);
            if (tokens[i] == 50256) expected.push_back(static_cast<uint32_t>(i));
        }
        EXPECT_EQ(bos_index(tokens, 50256), expected);
        if (size > 0) {
            std::erase(expected, 0u);
            for (auto& e : expected) --e;
            EXPECT_EQ(bos_index(std::span(tokens).subspan(1), 50256), expected);
        }
    }
}

}  // namespace
}  // namespace speedrun
