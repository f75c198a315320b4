#include "data/prefix_table.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <numeric>
#include <random>

#include "data/vocabulary.h"
#include "support/expect_error.h"
#include "support/golden_batches.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

// Tries every token, for every token.
std::vector<int64_t> by_search(const std::vector<std::string>& tokens, int64_t vocab_size) {
    std::vector<int64_t> table(static_cast<size_t>(vocab_size), -1);
    for (size_t id = 0; id < tokens.size(); ++id) {
        size_t longest = 0;
        for (size_t other = 0; other < tokens.size(); ++other) {
            const std::string& prefix = tokens[other];
            if (prefix.size() >= tokens[id].size() || prefix.size() <= longest ||
                tokens[id].compare(0, prefix.size(), prefix) != 0)
                continue;
            longest = prefix.size();
            table[id] = static_cast<int64_t>(other);
        }
    }
    return table;
}

// Distinct tokens of up to six bytes of an alphabet of three, 0 and 255 among them, so that most begin with
// others and bytes have to compare as unsigned numbers or consistently otherwise.
std::vector<std::string> random_tokens(std::mt19937& random, size_t count) {
    std::vector<std::string> tokens;
    while (tokens.size() < count) {
        std::string token(1 + random() % 6, '\0');
        for (char& byte : token)
            byte =
                "\x00\xff"
                "a"[random() % 3];
        if (std::ranges::find(tokens, token) == tokens.end()) tokens.push_back(token);
    }
    return tokens;
}

TEST(PrefixTable, IsTheLongestProperPrefix) {
    EXPECT_EQ(prefix_table({"abc", "a", "b", "ab", "abx", "ba"}, 8),
              (std::vector<int64_t>{3, -1, -1, 1, 3, 2, -1, -1}));
    EXPECT_EQ(prefix_table({}, 2), (std::vector<int64_t>{-1, -1}));
    std::mt19937 random(5);
    for (int trial = 0; trial < 200; ++trial) {
        const auto tokens = random_tokens(random, 1 + random() % 120);
        ASSERT_EQ(prefix_table(tokens, 130), by_search(tokens, 130)) << trial;
    }
}

// What record 88's build_prefix_table makes of GPT-2's vocabulary.
TEST(PrefixTable, OfGpt2IsTheReferences) {
    const std::filesystem::path folder = SPEEDRUN_SOURCE_DIR "/data/tokenizer";
    const auto table = prefix_table(load_vocabulary(folder), 50304);
    ASSERT_EQ(table.size(), 50304u);
    EXPECT_EQ(std::ranges::count(table, -1), 304);
    EXPECT_EQ(std::accumulate(table.begin(), table.end(), int64_t{0}), 548403601);
    EXPECT_EQ(golden::crc32(std::vector<int32_t>(table.begin(), table.end())), 2837427954u);
    const std::map<size_t, int64_t> samples{
        {0, -1},      {255, -1},      {256, 220},     {257, 220},   {262, 294},    {400, 83},
        {1000, 282},  {5000, 2104},   {11274, 42469}, {12345, 330}, {20000, 7653}, {31415, 31164},
        {40000, 649}, {50000, 10706}, {50255, 17841}, {50256, -1},  {50303, -1}};
    for (const auto& [id, prefix] : samples) EXPECT_EQ(table[id], prefix) << id;
}

class PrefixFile : public ::testing::Test {
  protected:
    PrefixFile() {
        config_.data.bos_id = 3;
        config_.model.vocab_size = 5;
        config_.data.prefix_table = (folder_ / "tokens.json").string();
    }
    std::vector<int64_t> load(const std::string& text) {
        std::ofstream(config_.data.prefix_table) << text;
        return load_prefix_table(config_);
    }

    TemporaryFolder folder_;
    Config config_;
};

TEST_F(PrefixFile, ListsBytesInHexadecimal) {
    EXPECT_EQ(load(R"(["00ff61", "00", "00ff"])"), (std::vector<int64_t>{2, -1, 1, -1, -1}));
    config_.data.prefix_table.clear();
    EXPECT_TRUE(load_prefix_table(config_).empty());
}

TEST_F(PrefixFile, MistakesAreNamed) {
    const auto expect = [&](const std::string& text, std::initializer_list<std::string> parts) {
        expect_user_error([&] { load(text); }, parts);
    };
    expect(R"({"61": 0})", {"tokens.json", "expected a list"});
    expect(R"(["61", "6", "62"])", {"tokens.json", "[1]", "\"6\"", "pairs of digits"});
    expect(R"(["61", "6G", "62"])", {"[1]", "6G"});
    expect(R"(["61", "", "62"])", {"[1]", "pairs of digits"});
    expect(R"(["61", 61, "62"])", {"[1]", "found 61"});
    expect(R"(["61", "62", "61"])", {"[2]", "\"61\"", "another token"});
    expect(R"(["61", "62"])", {"data.prefix_table", "2 tokens", "data.bos_id = 3"});
    expect(R"(["61", "62", "63", "64"])", {"4 tokens"});
    expect("[", {"tokens.json"});
    config_.data.prefix_table = (folder_ / "nothing").string();
    expect_user_error([&] { load_prefix_table(config_); }, {"nothing", "No such file"});
    config_.data.prefix_table = SPEEDRUN_SOURCE_DIR "/data/tokenizer";
    expect_user_error([&] { load_prefix_table(config_); }, {"50256 tokens"});
}

}  // namespace
}  // namespace speedrun
