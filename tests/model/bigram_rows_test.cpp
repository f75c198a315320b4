#include "model/bigram_rows.h"

#include <gtest/gtest.h>

namespace speedrun {
namespace {

// Of record 62's golden run: the rows that its Python made of these tokens, in a table of 2,560.
TEST(BigramRows, AreThoseOfTheReference) {
    const std::vector<int32_t> tokens{499, 3, 24, 171, 202, 419, 441, 96, 176, 23, 164, 451};
    const std::vector<int32_t> expected{2559, 1102, 2107, 1430, 420, 25, 968, 270, 2200, 2216, 587, 375};
    std::vector<int32_t> rows;
    bigram_rows({"", 36313, 27191}, 2560, tokens, rows);
    EXPECT_EQ(rows, expected);
}

// 27191 * 251519 wraps in 32 bits: remainders of negative numbers must not be negative.
TEST(BigramRows, WrapAndStayInTheTable) {
    std::vector<int32_t> tokens, rows;
    for (int32_t t = 0; t < 50257; t += 7) tokens.push_back(t * 31 % 50257);
    bigram_rows({"", 36313, 27191}, 251520, tokens, rows);
    ASSERT_EQ(rows.size(), tokens.size());
    EXPECT_EQ(rows[0], 251519);
    for (size_t t = 1; t < rows.size(); ++t) {
        const int64_t before = t == 1 ? 251519 : tokens[t - 1];
        const auto wrapped = static_cast<int32_t>(static_cast<uint32_t>(int64_t{36313} * tokens[t]) ^
                                                  static_cast<uint32_t>(int64_t{27191} * before));
        EXPECT_EQ(rows[t], ((wrapped % int64_t{251519}) + 251519) % 251519);
    }
    bigram_rows({"", 36313, 27191}, 251520, {}, rows);
    EXPECT_TRUE(rows.empty());
}

// Tokens and rows of a run of record 85's train_gpt.py.
TEST(SignRows, AreTheReferences) {
    const std::vector<int32_t> tokens{499, 3,   24,  75,  29,  206, 447, 138, 470, 299, 100,
                                      273, 266, 9,   66,  465, 20,  143, 6,   312, 191, 342,
                                      401, 87,  113, 295, 58,  409, 0,   3,   24,  171};
    const std::vector<int32_t> expected{0, 48, 27, 19, 22, 19, 49, 53, 28, 61, 15, 53, 27, 3, 11, 19,
                                        5, 27, 9,  62, 7,  41, 7,  6,  38, 22, 29, 35, 25, 3, 27, 51};
    std::vector<int32_t> rows;
    sign_rows(64, tokens, rows);
    EXPECT_EQ(rows, expected);
    sign_rows(64, {}, rows);
    EXPECT_TRUE(rows.empty());
}

}  // namespace
}  // namespace speedrun
