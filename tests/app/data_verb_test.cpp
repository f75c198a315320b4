#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/cli.h"
#include "data/shard.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

constexpr const char* kTokenizer = SPEEDRUN_SOURCE_DIR "/data/tokenizer";

// Runs `data ARGS...` and returns what it printed.
std::string data_verb(std::vector<std::string> args) {
    args.insert(args.begin(), "data");
    std::vector<char*> argv;
    for (std::string& a : args) argv.push_back(a.data());
    ::testing::internal::CaptureStdout();
    try {
        EXPECT_EQ(run_command(argv), 0);
    } catch (...) {
        ::testing::internal::GetCapturedStdout();
        throw;
    }
    return ::testing::internal::GetCapturedStdout();
}

TEST(DataVerb, TokenizeInspectBaseline) {
    const TemporaryFolder dir;
    std::ofstream(dir / "text") << "To be, or not to be\n--\nthat is the question\n";
    const std::string out = dir / "x", text = dir / "text";
    const std::vector<std::string> tokenize{"tokenize", "--tokenizer", kTokenizer, "--document-separator=--",
                                            "--out",    out,           text};
    EXPECT_NE(data_verb(tokenize).find("2 documents"), std::string::npos);
    expect_user_error([&] { data_verb(tokenize); }, {"exists already"});
    auto forced = tokenize;
    forced.insert(forced.begin() + 1, "--force");
    data_verb(forced);
    const auto report =
        nlohmann::json::parse(data_verb({"inspect", "--json", "--tokenizer", kTokenizer, out + "_*.bin"}));
    EXPECT_EQ(report.at(0).at("documents"), 2);
    EXPECT_EQ(report.at(0).at("sample"), "<|endoftext|>To be, or not to be\n");
    EXPECT_NE(data_verb({"inspect", out + "_000000.bin"}).find("2 documents"), std::string::npos);
    const auto losses =
        nlohmann::json::parse(data_verb({"baseline", "--json", "--train", out + "*", "--val", out + "*"}));
    EXPECT_LT(losses.at("bigram"), losses.at("unigram"));
    EXPECT_NE(data_verb({"bench", "--runs", "1", "--shard", out + "_000000.bin"}).find("GB/s"),
              std::string::npos);
}

TEST(DataVerb, Mistakes) {
    const TemporaryFolder dir;
    const std::string out = dir / "x", empty = dir / "empty";
    std::ofstream(empty).close();
    expect_user_error([] { data_verb({}); }, {"which part", "tokenize"});
    expect_user_error([] { data_verb({"tokenise"}); }, {"\"tokenise\"", "tokenize"});
    expect_user_error([] { data_verb({"tokenize"}); }, {"--tokenizer"});
    expect_user_error([] { data_verb({"inspect"}); }, {"which shards"});
    expect_user_error([] { data_verb({"inspect", "/nowhere/*.bin"}); }, {"/nowhere/*.bin"});
    expect_user_error([] { data_verb({"baseline", "--train", "x"}); }, {"--val"});
    expect_user_error([] { data_verb({"bench"}); }, {"--shard"});
    expect_user_error(
        [&] {
            data_verb({"tokenize", "--tokenizer", kTokenizer, "--out", out, empty});
        },
        {"the texts hold no document"});
    expect_user_error(
        [&] {
            data_verb({"tokenize", "--tokenizer", kTokenizer, "--out", out, "--shard-tokens", "0", empty});
        },
        {"--shard-tokens is 0"});
    write_shard(dir / "no_bos", std::vector<uint16_t>{1, 2});
    expect_user_error([&] { data_verb({"inspect", dir / "no_bos"}); }, {"no_bos", "starts a document"});
    EXPECT_NE(data_verb({"--help"}).find("tokenize"), std::string::npos);
}

}  // namespace
}  // namespace speedrun
