#include "util/text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <ranges>
#include <set>

#include "util/shape.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

TEST(Text, InQuotesEscapesAndShortens) {
    EXPECT_EQ(in_quotes("plain"), "\"plain\"");
    EXPECT_EQ(in_quotes("\x1b[31m\xff"), "\"\\x1b[31m\\xff\"");
    EXPECT_EQ(in_quotes(std::string(200, 'a')), "\"" + std::string(77, 'a') + "...\"");
}

TEST(Text, JoinedTakesAnyRangeOfTexts) {
    EXPECT_EQ(joined(std::vector<std::string>{}), "");
    EXPECT_EQ(joined(std::vector<std::string>{"", "b"}), ", b");
    EXPECT_EQ(joined(std::set<std::string>{"b", "a"}, "; "), "a; b");
    const std::vector<std::pair<std::string, int>> pairs{{"x", 1}, {"y", 2}};
    EXPECT_EQ(joined(pairs | std::views::keys), "x, y");
}

TEST(Text, NumberRangesFoldWhatFollowsEachOther) {
    using Ranges = std::vector<std::string>;
    EXPECT_EQ(number_ranges(std::vector<int64_t>{}), Ranges{});
    EXPECT_EQ(number_ranges(std::vector<int64_t>{3}), Ranges{"3"});
    EXPECT_EQ(number_ranges(std::vector<int64_t>{0, 1, 2, 5, 6, 9}), (Ranges{"0-2", "5-6", "9"}));
}

TEST(Text, NumberTextWritesWhatIsNoNumberAsAsked) {
    EXPECT_EQ(number_text("{:.3f}", 2.0 / 3), "0.667");
    EXPECT_EQ(number_text("{:+.1f} ms", 2), "+2.0 ms");
    EXPECT_EQ(number_text("{:.3f}", std::nan("")), "-");
    EXPECT_EQ(number_text("{:.3f}", std::nan(""), "none"), "none");
}

TEST(Text, TablesOfLongCellsAreWhole) {
    const std::string cell(2000, 'x');
    EXPECT_EQ(plain_table({{"a", "b"}, {cell, "1"}}), "a" + std::string(2001, ' ') + "b\n" + cell + "  1\n");
}

TEST(Shape, CountsElements) {
    EXPECT_EQ(element_count(std::vector<int64_t>{}), 1);
    EXPECT_EQ(element_count(std::vector<int64_t>{4, 768, 3}), 9216);
    EXPECT_EQ(element_count(std::vector<int64_t>{4, 0}), 0);
    EXPECT_EQ(shape_text(std::vector<int64_t>{4, 768}), "[4, 768]");
    EXPECT_EQ(shape_text(std::vector<int64_t>{}), "[]");
}

TEST(Shape, RefusesWhatIsAboveTheLimitWithoutOverflow) {
    constexpr int64_t most = std::numeric_limits<int64_t>::max();
    EXPECT_EQ(element_count_up_to(12, std::vector<int64_t>{3, 4}), 12);
    EXPECT_EQ(element_count_up_to(11, std::vector<int64_t>{3, 4}), std::nullopt);
    EXPECT_EQ(element_count_up_to(most, std::vector<int64_t>{most, 1}), most);
    EXPECT_EQ(element_count_up_to(most, std::vector<int64_t>{most, 2}), std::nullopt);
    EXPECT_EQ(element_count_up_to(most, std::vector<int64_t>{2, -1}), std::nullopt);
    EXPECT_EQ(element_count_up_to(10, std::vector<int64_t>{0, 5}), 0);
}

}  // namespace
}  // namespace speedrun
