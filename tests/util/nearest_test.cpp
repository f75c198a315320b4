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
}

}  // namespace
}  // namespace speedrun
