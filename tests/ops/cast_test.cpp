#include "ops/cast.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

namespace speedrun::ops {
namespace {

// Values around every rounding decision: ties both ways, overflow to infinity, subnormals, signed zeros.
at::Tensor edge_values() {
    std::vector<float> values = {0.0F, -0.0F, 1.0F, -1.0F, 3.4e38F, -3.4e38F, 1e-45F, 1e-40F};
    for (const uint32_t bits : {0x3f808000U, 0x3f818000U, 0x3f807fffU, 0x3f808001U, 0x7f7fffffU, 0x7f800000U,
                                0xff800000U, 0x00008000U, 0x00018000U, 0x007fffffU}) {
        float value;
        std::memcpy(&value, &bits, sizeof value);
        values.push_back(value);
    }
    return at::tensor(values);
}

TEST(Cast, RoundsToNearestEven) {
    at::manual_seed(1);
    for (const at::Tensor& x : {edge_values(), at::randn({100003}), at::randn({1})}) {
        const at::Tensor narrow = at::empty(x.sizes(), at::kBFloat16), wide = at::empty(x.sizes());
        cast(x, narrow);
        EXPECT_TRUE(at::equal(narrow.view(at::kShort), x.to(at::kBFloat16).view(at::kShort)));
        cast(narrow, wide);
        EXPECT_TRUE(at::equal(wide, narrow.to(at::kFloat)));
        cast(x, wide);
        EXPECT_TRUE(at::equal(wide, x));
    }
}

TEST(Cast, EveryBf16SurvivesTheWayToFp32AndBack) {
    std::vector<int16_t> bits(65536);
    std::iota(bits.begin(), bits.end(), std::numeric_limits<int16_t>::min());
    const at::Tensor all = at::tensor(bits, at::kShort).view(at::kBFloat16);
    const at::Tensor wide = at::empty({65536}), back = at::empty({65536}, at::kBFloat16);
    cast(all, wide);
    cast(wide, back);
    const at::Tensor nan = all.isnan();
    EXPECT_TRUE(at::equal(back.isnan(), nan));
    EXPECT_TRUE(
        at::equal(back.view(at::kShort).masked_select(~nan), all.view(at::kShort).masked_select(~nan)));
}

}  // namespace
}  // namespace speedrun::ops
