#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "data/text_pieces.h"
#include "data/vocabulary.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

// scripts/fetch_tokenizer puts the files there.
const Tokenizer& gpt2() {
    static const Tokenizer tokenizer(SPEEDRUN_SOURCE_DIR "/data/tokenizer");
    return tokenizer;
}

TEST(Tokenizer, EqualsTiktokenOnTrickyTexts) {
    const auto golden =
        nlohmann::json::parse(std::ifstream(SPEEDRUN_SOURCE_DIR "/tests/golden/tokenizer.json"));
    ASSERT_GT(golden.size(), 50u);
    for (const auto& c : golden) {
        const auto text = c["text"].get<std::string>();
        const auto tokens = gpt2().encode(text);
        EXPECT_EQ(tokens, c["tokens"].get<std::vector<uint16_t>>()) << c["text"];
        EXPECT_EQ(gpt2().decode(tokens), text);
    }
}

TEST(Tokenizer, GivesBackAnyBytes) {
    std::mt19937 random(3);
    for (int trial = 0; trial < 2000; ++trial) {
        std::string bytes(random() % 300, '\0');
        // half of the trials draw from bytes that begin and continue UTF-8 sequences, so that many are nearly
        // valid
        for (char& b : bytes) b = static_cast<char>(trial % 2 ? random() % 256 : 0x80 + random() % 128);
        EXPECT_EQ(gpt2().decode(gpt2().encode(bytes)), bytes);
    }
}

TEST(Tokenizer, InvalidBytesAreSymbolsOneByOne) {
    const CharClasses classes;
    for (const std::string bad :
         {"\x80", "\xC0\xAF", "\xC1\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3", "\xE4\xBD", "\xF0\x9F\x98"}) {
        const auto found = classes.at(bad);
        EXPECT_EQ(found.cls, CharClass::other);
        EXPECT_EQ(found.bytes, 1u);
    }
    const std::string text = " \xFF\xFE!a";
    EXPECT_EQ(piece_end(text, 0, classes), 4u);
}

TEST(Tokenizer, EndOfTextIsNeverMadeFromText) {
    EXPECT_EQ(gpt2().end_of_text(), 50256);
    EXPECT_EQ(gpt2().vocab_size(), 50257);
    for (const uint16_t token : gpt2().encode("<|endoftext|>")) EXPECT_NE(token, 50256);
    EXPECT_EQ(gpt2().decode(std::vector<uint16_t>{50256}), "<|endoftext|>");
    expect_user_error([] { gpt2().decode(std::vector<uint16_t>{50257}); }, {"50257"});
    expect_user_error([] { gpt2().token_bytes(-1); }, {"-1"});
}

TEST(Tokenizer, ALongPieceTakesNoQuadraticTime) {
    const std::string text(3'000'000, 'a');  // minutes if it were quadratic
    EXPECT_EQ(gpt2().decode(gpt2().encode(text)), text);
}

class HostileVocabulary : public ::testing::Test {
  protected:
    void write(const std::string& merges, const std::string& encoder) {
        std::ofstream(dir_ / "vocab.bpe", std::ios::binary) << merges;
        std::ofstream(dir_ / "encoder.json", std::ios::binary) << encoder;
    }
    void expect(const std::string& merges, const std::string& encoder,
                std::initializer_list<std::string> parts) {
        write(merges, encoder);
        expect_user_error([&] { Tokenizer{dir_.path()}; }, parts);
    }
    // The 256 single bytes, "ab", end-of-text; then `extra` instead of the closing brace.
    static std::string encoder(const std::string& extra = "}") {
        nlohmann::ordered_json out;
        const Tokenizer& t = gpt2();
        const auto full =
            nlohmann::json::parse(std::ifstream(SPEEDRUN_SOURCE_DIR "/data/tokenizer/encoder.json"));
        for (const auto& [key, id] : full.items()) {
            if (id < 256) out[key] = id;
        }
        EXPECT_EQ(t.token_bytes(0), "!");
        out["ab"] = 256;
        out["<|endoftext|>"] = 257;
        std::string text = out.dump();
        text.pop_back();
        return text + extra;
    }

    TemporaryFolder dir_;
};

TEST_F(HostileVocabulary, ASmallGoodOneWorks) {
    write("#version: 0.2\na b\n", encoder());
    const Tokenizer t(dir_.path());
    EXPECT_EQ(t.vocab_size(), 258);
    EXPECT_EQ(t.encode("abba").front(), 256);
    EXPECT_EQ(t.encode("abba").size(), 3u);
}

TEST_F(HostileVocabulary, BadMerges) {
    expect_user_error([&] { Tokenizer{dir_.path()}; }, {"vocab.bpe", "No such file"});
    const std::string good = encoder();
    expect("", good, {"vocab.bpe", "line 1"});
    expect("a b\n", good, {"line 1", "#version"});
    expect("#version: 0.2\na b c\n", good, {"line 2", "one space"});
    expect("#version: 0.2\nab\n", good, {"line 2"});
    expect("#version: 0.2\n\n", good, {"line 2"});
    expect("#version: 0.2\na b\na b\n", good, {"line 3", "exists already"});
    expect("#version: 0.2\nab c\n", good, {"line 2", "\"ab\" is not a token"});
    expect("#version: 0.2\na \xFF\n", good, {"line 2"});
    expect("#version: 0.2\na \xC3", good, {"line 2"});
    expect("#version: 0.2\na \xE4\xBD\xA0\n", good, {"line 2"});
    std::string many = "#version: 0.2\n";
    for (int i = 0; i < 3; ++i)
        many += std::string(static_cast<size_t>(1) << i, 'a') + " " +
                std::string(static_cast<size_t>(1) << i, 'a') + "\n";
    expect(many, good, {"encoder.json"});
}

TEST_F(HostileVocabulary, BadEncoder) {
    const std::string merges = "#version: 0.2\na b\n";
    expect(merges, "", {"encoder.json", "byte"});
    expect(merges, "[]", {"an array"});
    expect(merges, "7", {"object"});
    expect(merges, "{\"a\": 64}", {"missing"});
    expect(merges, encoder(",\"zz\": 300}"), {"\"zz\"", "not a token"});
    expect(merges, encoder(",\"ab\": 256}"), {"\"ab\"", "twice"});
    expect(merges, encoder(",\"<|endoftext|>\": 257}"), {"endoftext", "twice"});
    expect(merges, encoder(",\"x\": {}}"), {"an object"});
    expect(merges, encoder(",\"x\": -1}"), {"negative"});
    expect(merges, encoder(",\"x\": 1.5}"), {"fraction"});
    expect(merges, encoder(""), {"encoder.json", "byte"});
    expect(merges, std::string(1'000'000, '['), {"an array"});
    std::string wrong = encoder();
    wrong.replace(wrong.find("\"ab\":256"), 8, "\"ab\":255");
    expect(merges, wrong, {"\"ab\"", "255", "256"});
}

TEST_F(HostileVocabulary, MessagesAreShortAndPrintable) {
    const std::string noise = "\x1b[31m" + std::string(100'000, 'x');
    for (const auto& [merges, json] :
         {std::pair("#version: 0.2\n" + noise + " a\n", encoder()),
          std::pair(std::string("#version: 0.2\n"), "{\"" + std::string(100'000, 'y') + "\": 1}"),
          std::pair(std::string("#version: 0.2\n"), "{" + noise)}) {
        try {
            write(merges, json);
            load_vocabulary(dir_.path());
            ADD_FAILURE() << "no error";
        } catch (const UserError& error) {
            const std::string text = error.what();
            EXPECT_LT(text.size(), 600U);
            EXPECT_EQ(text.find('\x1b'), std::string::npos);
        }
    }
}

}  // namespace
}  // namespace speedrun
