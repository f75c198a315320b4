#include "util/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "util/error.h"

namespace speedrun {
namespace {

using std::string;

class Safetensors : public ::testing::Test {
  protected:
    void SetUp() override {
        const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
        file_ = std::filesystem::path(::testing::TempDir()) /
                ("st-" + std::to_string(::getpid()) + "-" + info->name());
    }
    void TearDown() override { std::filesystem::remove(file_); }

    void write_bytes(const string& bytes) { std::ofstream(file_, std::ios::binary) << bytes; }
    void write(const string& header, size_t data, int64_t length = -1) {
        const uint64_t size = length < 0 ? header.size() : static_cast<uint64_t>(length);
        write_bytes(string(reinterpret_cast<const char*>(&size), 8) + header + string(data, 'x'));
    }
    // The UserError's text; it must name the file and a byte.
    string message() {
        try {
            const SafetensorsFile file(file_);
        } catch (const UserError& error) {
            EXPECT_NE(string(error.what()).find(file_.string()), string::npos) << error.what();
            return error.what();
        }
        return "no error";
    }

    std::filesystem::path file_;
};

#define EXPECT_SAYS(part) EXPECT_NE(message().find(part), string::npos) << message()

TEST_F(Safetensors, WritesWhatItReads) {
    const std::vector<float> floats{1, 2, 3, 4, 5, 6};
    const std::vector<uint8_t> bytes{7, 8, 9};
    write_safetensors(file_,
                      {{"b", "U8", {3}, std::as_bytes(std::span(bytes))},
                       {"f", "F32", {2, 3}, std::as_bytes(std::span(floats))},
                       {"empty", "F32", {0, 5}, {}},
                       {"scalar", "F32", {}, std::as_bytes(std::span(floats)).first(4)}},
                      {{"format", "pt"}});
    const SafetensorsFile file(file_);
    ASSERT_EQ(file.tensors().size(), 4u);
    const SafeTensor* f = file.find("f");
    ASSERT_NE(f, nullptr);
    EXPECT_EQ(f->dtype, "F32");
    EXPECT_EQ(f->shape, (std::vector<int64_t>{2, 3}));
    ASSERT_EQ(f->data.size(), 24u);
    EXPECT_EQ(std::memcmp(f->data.data(), floats.data(), 24), 0);
    EXPECT_EQ(file.find("b")->data.size(), 3u);
    EXPECT_EQ(file.find("empty")->data.size(), 0u);
    EXPECT_EQ(file.find("scalar")->shape, std::vector<int64_t>{});
    EXPECT_EQ(file.find("none"), nullptr);
    EXPECT_EQ(file.metadata().at("format"), "pt");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(f->data.data()) % 8, 0u);
    EXPECT_EQ(message(), "no error");
}

TEST_F(Safetensors, ShortOrMissingFiles) {
    EXPECT_SAYS("cannot be opened");
    write_bytes("");
    EXPECT_SAYS("is empty");
    write_bytes("1234567");
    EXPECT_SAYS("byte 0: the file ends inside the 8 bytes");
    write("{}", 0, 3);
    EXPECT_SAYS("byte 0: the header's length is given as 3 bytes; at most 2");
    write("{}", 0, std::numeric_limits<int64_t>::max());
    EXPECT_SAYS("at most 2 are possible");
    write("{}", 0, -2);
    EXPECT_EQ(message(), "no error");  // no tensors at all is a legal file
    file_ = ::testing::TempDir();
    EXPECT_SAYS("is not a regular file");
    file_ = "nothing";
}

TEST_F(Safetensors, HeaderAboveTheLimit) {
    write("{}", 0, 100'000'001);
    std::filesystem::resize_file(file_, 100'000'100);  // sparse: the file would have room for it
    EXPECT_SAYS("at most 100000000 are possible");
}

TEST_F(Safetensors, MalformedJson) {
    write("{\"a\":", 0);
    EXPECT_SAYS("not valid JSON");
    write("[1]", 0);
    EXPECT_SAYS("byte 8: the header does not begin with '{'");
    write("{} {}", 0);
    EXPECT_SAYS("not valid JSON");
    write("{\"\xff\":{}}", 0);
    EXPECT_SAYS("not valid JSON");
    write("{\"a\":" + string(1'000'000, '['), 0);
    EXPECT_SAYS("a list where the format has a tensor's object");
    write(string(1'000'000, '{'), 0);
    EXPECT_SAYS("not valid JSON");
    string deep;
    for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
    write(deep, 0);
    EXPECT_SAYS("unknown key \"a\" in tensor \"a\"");
}

string tensor(const string& dtype, const string& shape, const string& offsets) {
    return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

TEST_F(Safetensors, WrongTypesAndKeys) {
    const string good = tensor("F32", "[1]", "[0,4]");
    write("{\"a\":" + good + "}", 4);
    EXPECT_EQ(message(), "no error");
    write("{\"a\":" + good + ",\"a\":" + good + "}", 4);
    EXPECT_SAYS("key \"a\" appears twice");
    write(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
    EXPECT_SAYS("key \"dtype\" appears twice");
    write(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4);
    EXPECT_SAYS("no \"dtype\" in tensor \"a\"");
    write(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4);
    EXPECT_SAYS("unknown key \"x\" in tensor \"a\"");
    write("{\"a\":" + tensor("F33", "[1]", "[0,4]") + "}", 4);
    EXPECT_SAYS("tensor \"a\": unknown dtype \"F33\"");
    for (const char* shape : {"[-1]", "[1.0]", "[1e3]", "[\"1\"]", "[[1]]", "[null]", "[true]", "1",
                              "[99999999999999999999]", "[18446744073709551615]", "{}"}) {
        write(string("{\"a\":") + tensor("F32", shape, "[0,4]") + "}", 4);
        EXPECT_NE(message(), "no error") << shape;
    }
    for (const char* offsets : {"[0]", "[0,4,8]", "[]", "[4,0]", "[-4,0]", "\"0\""}) {
        write(string("{\"a\":") + tensor("F32", "[1]", offsets) + "}", 4);
        EXPECT_NE(message(), "no error") << offsets;
    }
    write(R"({"__metadata__":{"n":1}})", 0);
    EXPECT_SAYS("a number where the format has a text");
}

TEST_F(Safetensors, PositionsPointIntoTheFile) {
    const string before = "{\"a\":" + tensor("F32", "[1]", "[0,4]") + ",\"b\":{\"dtype\":7";
    write(before + "}}", 4);
    EXPECT_SAYS("byte " + std::to_string(8 + before.size() + 1) +
                ":");  // the parser reads one character beyond a number
}

TEST_F(Safetensors, SizesMustFit) {
    const auto one = [&](const string& t, size_t data) { write("{\"a\":" + t + "}", data); };
    one(tensor("F32", "[2]", "[0,4]"), 4);
    EXPECT_SAYS("its shape and dtype need 8 bytes, data_offsets [0, 4] give 4");
    one(tensor("F32", "[2]", "[0,8]"), 4);
    EXPECT_SAYS("reach beyond the 4 bytes of data");
    one(tensor("F32", "[4611686018427387904,4]", "[0,0]"), 0);  // 2^62 * 4 * 4 = 2^66, 0 if it wrapped
    EXPECT_SAYS("overflows 64 bits");
    one(tensor("F32", "[1]", "[0,4]"), 8);
    EXPECT_SAYS("the tensors end at data byte 4, the file has 8");
    one(tensor("F32", "[1]", "[4,8]"), 8);
    EXPECT_SAYS("leaving a hole behind the header");
}

TEST_F(Safetensors, TensorsMustTile) {
    const auto two = [&](const string& a, const string& b, size_t data) {
        write("{\"a\":" + a + ",\"b\":" + b + "}", data);
    };
    two(tensor("F32", "[2]", "[0,8]"), tensor("F32", "[1]", "[4,8]"), 8);
    EXPECT_SAYS("tensor \"b\" begins at data byte 4, inside of \"a\", which ends at 8");
    two(tensor("F32", "[1]", "[0,4]"), tensor("F32", "[1]", "[0,4]"), 4);
    EXPECT_SAYS("inside of");
    two(tensor("F32", "[1]", "[0,4]"), tensor("F32", "[1]", "[8,12]"), 12);
    EXPECT_SAYS("leaving a hole behind \"a\"");
    two(tensor("U8", "[2]", "[0,2]"), tensor("F32", "[1]", "[2,6]"), 6);
    EXPECT_SAYS("not a multiple of its element's 4 bytes");
    two(tensor("F32", "[1]", "[4,8]"), tensor("F32", "[1]", "[0,4]"), 8);
    EXPECT_EQ(message(), "no error");
}

TEST_F(Safetensors, HostileNamesDoNotReachTheTerminal) {
    write("{\"\\u001b[31m" + string(100'000, 'n') + "\":" + tensor("F32", "[1]", "[0,8]") + "}", 8);
    const string text = message();
    EXPECT_EQ(text.find('\x1b'), string::npos);
    EXPECT_LT(text.size(), 500u + file_.string().size());
}

// Every single-byte change of a good file either reads or is refused; under the sanitizers this finds stray
// reads.
TEST_F(Safetensors, SurvivesEveryByteChanged) {
    const string header =
        "{\"a\":" + tensor("F32", "[1,2]", "[0,8]") + ",\"bc\":" + tensor("U8", "[3]", "[8,11]") + "}";
    const uint64_t size = header.size();
    const string good = string(reinterpret_cast<const char*>(&size), 8) + header + string(11, 'x');
    int refused = 0;
    for (size_t i = 0; i < 8 + header.size(); ++i) {
        for (const char flip : {'\x01', '\x10', '\x80'}) {
            string bad = good;
            bad[i] = static_cast<char>(bad[i] ^ flip);
            write_bytes(bad);
            refused += message() != "no error";
        }
    }
    EXPECT_GT(refused, static_cast<int>(header.size()) * 2);  // what remains: letters of names, white space
}

TEST_F(Safetensors, CountsAreLimited) {
    string many = "{";
    for (int i = 0; i <= 100'000; ++i)
        many += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":" + tensor("U8", "[0]", "[0,0]");
    write(many + "}", 0);
    EXPECT_SAYS("more than 100000 keys in one object");
    string shape = "[0";
    for (int i = 0; i < 64; ++i) shape += ",1";
    write("{\"a\":" + tensor("U8", shape + "]", "[0,0]") + "}", 0);
    EXPECT_SAYS("a list of more than 64 numbers in tensor \"a\"");
    write("{\"" + string(5000, 'n') + "\":" + tensor("U8", "[0]", "[0,0]") + "}", 0);
    EXPECT_SAYS("has 5000 bytes; at most 4096");
}

}  // namespace
}  // namespace speedrun
