#include "ops/cpu/exp2.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace speedrun::ops::cpu {
namespace {

TEST(Exp2, IsAccurateToTheLastBits) {
    double worst = 0;
    for (double x = -126; x <= 127; x += 1.0 / 1024 + 1e-6) {
        const auto rounded = static_cast<float>(x);
        worst = std::max(worst, std::abs(exp2_fast(rounded) / std::exp2(static_cast<double>(rounded)) - 1));
    }
    EXPECT_LT(worst, 1.5e-7);
    EXPECT_EQ(exp2_fast(-127.0F), 0.0F);
    EXPECT_EQ(exp2_fast(-1e30F), 0.0F);
    EXPECT_EQ(exp2_fast(-INFINITY), 0.0F);
    EXPECT_EQ(exp2_fast(0.0F), 1.0F);
    EXPECT_TRUE(std::isnan(exp2_fast(NAN)));
}

}  // namespace
}  // namespace speedrun::ops::cpu
