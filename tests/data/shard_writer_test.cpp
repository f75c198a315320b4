#include "data/shard_writer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <memory>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

std::vector<std::string> documents_of(const std::string& text, const std::optional<std::string>& separator) {
    const TemporaryFolder dir;
    std::ofstream(dir / "text", std::ios::binary) << text;
    std::vector<std::string> found;
    for_each_document(dir / "text", separator, [&](std::string_view d) { found.emplace_back(d); });
    return found;
}

TEST(Documents, WholeFileOrBetweenSeparatorLines) {
    using List = std::vector<std::string>;
    EXPECT_EQ(documents_of("a\n--\nb", std::nullopt), (List{"a\n--\nb"}));
    EXPECT_EQ(documents_of("a\n--\nb", "--"), (List{"a\n", "b"}));
    EXPECT_EQ(documents_of("--\n--\na\nx--\n--y\n--\n", "--"), (List{"a\nx--\n--y\n"}));
    EXPECT_EQ(documents_of("a\n\nb\n", ""), (List{"a\n", "b\n"}));
    EXPECT_EQ(documents_of("", std::nullopt), List());
    EXPECT_EQ(documents_of("--\n--", "--"), List());
    expect_user_error([] { for_each_document("/nowhere", std::nullopt, [](std::string_view) {}); },
                      {"/nowhere"});
}

TEST(Documents, ASeparatorIsFoundWhateverEndsItsLine) {
    using List = std::vector<std::string>;
    EXPECT_EQ(documents_of("a\r\n--\r\nb\r\n", "--"), (List{"a\r\n", "b\r\n"}));
    EXPECT_EQ(documents_of("\xEF\xBB\xBF--\na", "--"), (List{"a"}));
    const TemporaryFolder dir;
    std::ofstream(dir / "text") << "a\n-- \nb\r--\rc\n";
    const TextDocuments found = for_each_document(dir / "text", "--", [](std::string_view) {});
    EXPECT_EQ(found.documents, 1);
    EXPECT_EQ(found.separators, 0);  // by which the caller knows that it never matched
}

TEST(ShardWriter, LeavesNothingWhereItDoesNotComeToAnEnd) {
    const TemporaryFolder dir;
    const Tokenizer tokenizer(SPEEDRUN_SOURCE_DIR "/data/tokenizer");
    {
        ShardWriter writer(tokenizer, dir / "x", 2, Overwrite::no);
        for (const char* document : {"a", "b", "c"}) writer.add(document);
        EXPECT_FALSE(std::filesystem::is_empty(dir.path()));
    }
    EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(ShardWriter, OverwritesNothingBeforeAllIsWritten) {
    const TemporaryFolder dir;
    const Tokenizer tokenizer(SPEEDRUN_SOURCE_DIR "/data/tokenizer");
    const auto begin = [&] {
        auto writer = std::make_unique<ShardWriter>(tokenizer, dir / "x", 2, Overwrite::yes);
        for (const char* document : {"a", "b", "c"}) writer->add(document);
        return writer;
    };
    std::ofstream(dir / "x_000000.bin") << "of an earlier run";
    begin();
    EXPECT_EQ(std::filesystem::file_size(dir / "x_000000.bin"), 17u);
    EXPECT_EQ(begin()->finish().files.size(), 3u);
    EXPECT_EQ(Shard(dir / "x_000000.bin").tokens().size(), 2u);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 3);
}

TEST(ShardWriter, WholeDocumentsShardByShard) {
    const TemporaryFolder dir;
    const Tokenizer tokenizer(SPEEDRUN_SOURCE_DIR "/data/tokenizer");
    const auto write = [&](std::initializer_list<std::string_view> documents, int64_t tokens,
                           Overwrite overwrite) {
        ShardWriter writer(tokenizer, dir / "x", tokens, overwrite);
        for (const auto d : documents) writer.add(d);
        return writer.finish();
    };
    const auto summary = write({"a b", "a", "a b c d e f g", "a"}, 5, Overwrite::no);
    EXPECT_EQ(summary.documents, 4);
    EXPECT_EQ(summary.tokens, 15);
    ASSERT_EQ(summary.files.size(), 3u);
    EXPECT_EQ(Shard(summary.files[0]).tokens().size(), 5u);  // 3 + 2: full to the last token
    EXPECT_EQ(Shard(summary.files[1]).tokens().size(), 8u);  // longer than a shard
    EXPECT_EQ(Shard(summary.files[2]).tokens().size(), 2u);
    EXPECT_EQ(Shard(summary.files[1]).tokens()[0], 50256);
    expect_user_error([&] { write({"a"}, 5, Overwrite::no); }, {"x_000000.bin", "exists", "--force"});
    EXPECT_EQ(write({"a"}, 5, Overwrite::yes).files.size(), 1u);
    EXPECT_FALSE(std::filesystem::exists(dir / "x_000001.bin"));  // left by the longer run
    EXPECT_FALSE(std::filesystem::exists(dir / "x_000002.bin"));
    expect_user_error([&] { ShardWriter(tokenizer, dir / "no/x", 5, Overwrite::no); }, {"no such folder"});
}

}  // namespace
}  // namespace speedrun
