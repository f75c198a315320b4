#include "util/utf8.h"

#include <gtest/gtest.h>

namespace speedrun {
namespace {

TEST(ValidUtf8, KeepsWhatIsWellFormed) {
    for (const std::string text :
         {"", "plain\ttext\n", "\xC3\xA9\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF"})
        EXPECT_EQ(valid_utf8(text), text);
}

// Unicode 15, table 3-7: each is a sequence that is not well-formed, with the number of bytes it has.
TEST(ValidUtf8, ReplacesEachByteThatIsNot) {
    const std::string r = "\xEF\xBF\xBD";
    EXPECT_EQ(valid_utf8("a\x80z"), "a" + r + "z") << "a continuation alone";
    EXPECT_EQ(valid_utf8("\xC0\xAF"), r + r) << "overlong";
    EXPECT_EQ(valid_utf8("\xE0\x9F\x80"), r + r + r) << "overlong";
    EXPECT_EQ(valid_utf8("\xF0\x8F\xBF\xBF"), r + r + r + r) << "overlong";
    EXPECT_EQ(valid_utf8("\xED\xA0\x80"), r + r + r) << "a surrogate";
    EXPECT_EQ(valid_utf8("\xF4\x90\x80\x80"), r + r + r + r) << "above U+10FFFF";
    EXPECT_EQ(valid_utf8("\xE2\x82"), r + r) << "cut";
    EXPECT_EQ(valid_utf8("\xE2\x82z"), r + r + "z") << "cut";
    EXPECT_EQ(valid_utf8(std::string("\0\x1b[1m\x7f", 6)), r + r + "[1m" + r) << "control characters";
}

TEST(ValidUtf8, ReplacesWhatXmlHasNot) {
    const std::string r = "\xEF\xBF\xBD";
    EXPECT_EQ(valid_utf8("\xEF\xBF\xBF|\xEF\xBF\xBE|\xEF\xBF\xBD"), r + "|" + r + "|" + r);
    EXPECT_EQ(valid_utf8("\xC2\x9B|\xC2\xA0"), r + "|\xC2\xA0") << "U+009B begins an escape sequence";
}

TEST(TerminalText, HasNoControlCharactersButLineEnds) {
    EXPECT_EQ(terminal_text("a\tb\x1b[31m\r\n\xC2\x9B\xFF\xC3\xA9"), "a?b?[31m?\n??\xC3\xA9");
}

}  // namespace
}  // namespace speedrun
