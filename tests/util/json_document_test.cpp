#include "util/json_document.h"

#include <gtest/gtest.h>

#include <string>

#include "config/config_testing.h"
#include "util/text.h"

namespace speedrun {
namespace {

void expect_parse_error(const std::string& text, std::initializer_list<std::string> parts) {
    expect_user_error([&] { parse_json(text, "file.json"); }, parts);
}

std::string repeat(const std::string& text, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += text;
    return out;
}

TEST(JsonDocument, MalformedTextGivesLineColumnAndByte) {
    expect_parse_error("{\n  \"a\": 1,\n  \"b\" 2\n}", {"file.json:3:7 (byte 18): malformed JSON"});
    expect_parse_error("", {"file.json:1:1 (byte 0): malformed JSON", "unexpected end of input"});
    expect_parse_error("{\"a\": 1", {"malformed JSON", "(byte 7)"});
    expect_parse_error("{} x", {"malformed JSON", "file.json:1:4"});
    expect_parse_error("{\"a\": 1,}", {"malformed JSON"});
    expect_parse_error("{'a': 1}", {"malformed JSON"});
    expect_parse_error("{\"a\": 1} // comment", {"malformed JSON"});
}

TEST(JsonDocument, NumbersThatAreNone) {
    for (const std::string number : {"NaN", "Infinity", "-Infinity", "01", "+1", "1.", ".5", "0x10", "1e"})
        expect_parse_error("{\"a\": " + number + "}", {"file.json:1:", "malformed JSON"});
    expect_parse_error("{\"a\": 1e999}", {"number overflow", "1e999"});
    expect_parse_error("{\"a\": -1e999}", {"number overflow"});
}

TEST(JsonDocument, TextThatIsNotUtf8IsRefusedAndNotEchoed) {
    expect_parse_error("{\"a\": \"\xff\xfe\"}", {"malformed JSON", "UTF-8"});
    expect_parse_error("{\"\xc3\": 1}", {"malformed JSON"});
    expect_parse_error(std::string("{\"a\": \"\0\"}", 10), {"malformed JSON"});
    try {
        parse_json("{\"a\": \"\xff\x1b[31m\"}", "file.json");
        FAIL();
    } catch (const UserError& error) {
        for (const char c : std::string(error.what())) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << int{c};
    }
}

TEST(JsonDocument, DepthLimit) {
    EXPECT_NO_THROW(parse_json(repeat("[", 64) + repeat("]", 64), "file.json"));
    expect_parse_error(repeat("[", 65) + repeat("]", 65), {"file.json:1:", "nested deeper than 64"});
    expect_parse_error(repeat("{\"a\":", 1000000), {"nested deeper than 64"});
    expect_parse_error(repeat("[", 1000000), {"nested deeper than 64"});
}

TEST(JsonDocument, SizeLimit) {
    const std::string spaces(max_json_bytes - 2, ' ');
    EXPECT_EQ(parse_json("{}" + spaces, "file.json"), Json::object());
    expect_parse_error("{}" + spaces + " ", {"file.json: larger than 16777216 bytes"});
    const ConfigFiles files;
    const auto file = files.write("large.json", "{}" + spaces + "       ");
    expect_user_error([&] { read_json_file(file); }, {"large.json", "larger than"});
}

TEST(JsonDocument, KeyLimitKeepsHostileObjectsCheap) {
    std::string text = "{";
    for (int i = 0; i < 1000000; ++i) text += "\"k" + std::to_string(i) + "\":1,";
    expect_parse_error(text + "\"z\":1}", {"more than 10000 keys"});
}

TEST(JsonDocument, DuplicateKeys) {
    expect_parse_error("{\"a\": 1, \"b\": {\"c\": 1},\n \"a\": 2}",
                       {"file.json:2:", "key \"a\" appears twice"});
    expect_parse_error("{\"a\": {\"b\": 1, \"b\": 1}}", {"key \"b\" appears twice"});
    expect_parse_error("{\"a\": 1, \"\\u0061\": 2}", {"key \"a\" appears twice"});
    EXPECT_NO_THROW(parse_json("[{\"a\": 1}, {\"a\": {\"a\": 1}}]", "file.json"));
}

TEST(JsonDocument, KeepsOrderAndValues) {
    const Json json = parse_json("{\"z\": [1, -2, 2.5, \"s\", null, true], \"a\": {\"b\": {}}}", "file.json");
    EXPECT_EQ(json.dump(), "{\"z\":[1,-2,2.5,\"s\",null,true],\"a\":{\"b\":{}}}");
    EXPECT_EQ(parse_json("18446744073709551615", "x").get<uint64_t>(), UINT64_MAX);
}

TEST(JsonDocument, UnreadableFiles) {
    const ConfigFiles files;
    expect_user_error([&] { read_json_file(files.path() / "missing.json"); },
                      {"missing.json", "No such file"});
    expect_user_error([&] { read_json_file(files.path()); }, {"cannot be read"});
}

TEST(JsonDocument, PrettyTextParsesToTheSameDocument) {
    const Json json = read_json_file(record_42);
    const std::string text = pretty_json(json);
    EXPECT_EQ(parse_json(text, "pretty"), json);
    EXPECT_EQ(pretty_json(parse_json(text, "pretty")), text);
    EXPECT_EQ(pretty_json(Json::object()), "{}");
    EXPECT_EQ(pretty_json(parse_json("{\"a\":[1,{\"b\":[]}]}", "x")), "{\"a\": [1, {\"b\": []}]}");
}

TEST(JsonDocument, TextForTerminalsHasNoControls) {
    const Json json{{"a\x7f",
                     "\x1b[2J \xc2\x9b"
                     "31m \xc3\xa9 \xe2\x82\xac"}};
    const std::string text = pretty_json(json);
    EXPECT_EQ(text, R"({"a\u007f": "\u001b[2J \u009b31m )"
                    "\xc3\xa9 \xe2\x82\xac\"}");
    EXPECT_EQ(parse_json(text, "text"), json);
}

TEST(JsonDocument, BriefTextsAreShortAndPrintable) {
    EXPECT_EQ(brief_json(Json(std::string(1000, 'x'))).size(), 82u);
    EXPECT_EQ(brief_json(Json::array({1, "a"})), "[1,\"a\"]");
    EXPECT_EQ(brief_json(Json(std::vector<int>(100))), "an array of 100 entries");
    EXPECT_EQ(in_quotes("\x1b\xff"), "\"\\x1b\\xff\"");
}

}  // namespace
}  // namespace speedrun
