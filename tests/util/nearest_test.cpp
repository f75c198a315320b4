#include "util/nearest.h"

#include <gtest/gtest.h>

#include <vector>

namespace speedrun {
namespace {

TEST(EditDistance, CountsInsertionsDeletionsReplacementsAndSwaps) {
    EXPECT_EQ(edit_distance("", ""), 0);
    EXPECT_EQ(edit_distance("abc", ""), 3);
    EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
    EXPECT_EQ(edit_distance("trian", "train"), 1);
    EXPECT_EQ(edit_distance("ab", "ba"), 1);
}

TEST(Nearest, IsTheFirstOfTheBest) {
    const std::vector<std::string> words = {"train", "eval", "brain"};
    EXPECT_EQ(nearest("trian", words), "train");
    EXPECT_EQ(nearest("evla", words), "eval");
    EXPECT_EQ(nearest("rain", words), "train");
    EXPECT_EQ(nearest("x", {}), "");
    EXPECT_EQ(nearest("nosuch", std::vector<std::string>{"bench", "config"}), "") << "too far off";
    EXPECT_EQ(nearest("lx", std::vector<std::string>{"lr"}), "lr");
}

// Names come from files: a table of 200 MB by 5 entries would be 4 GB.
TEST(Nearest, LongNamesCostLittle) {
    const std::string long_name(200'000'000, 'x');
    EXPECT_EQ(nearest(long_name, std::vector<std::string>{"xxxxx", std::string(150, 'x')}),
              std::string(150, 'x'));
}

}  // namespace
}  // namespace speedrun
