#include "optim/adam.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "compare.h"
#include "ops/optim/adam_update.h"
#include "oracle.h"

namespace speedrun {
namespace {

Parameter adam_parameter(at::IntArrayRef shape, at::ScalarType dtype) {
    at::manual_seed(3);
    const at::Tensor value = at::randn(shape).to(dtype);
    return {{}, value, at::zeros_like(value), value};
}

AdamConfig adam_of_record43(AdamConfig::StateDtype state = AdamConfig::StateDtype::fp32) {
    return {.lr = 0.008, .beta1 = 0.65, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0, .state_dtype = state};
}

OptimParamConfig row(double lr_mul, double wd_mul) {
    OptimParamConfig made;
    made.lr_mul = lr_mul;
    made.wd_mul = wd_mul;
    return made;
}

TEST(Adam, MatchesTheTranscription) {
    Parameter p = adam_parameter({40, 25}, at::kFloat);
    AdamConfig config = adam_of_record43();
    config.weight_decay = 0.3;
    Adam rule(config, row(2, 0.5), p);
    std::vector<oracle::Adam> want(1000);
    for (int64_t i = 0; i < 1000; ++i)
        want[static_cast<size_t>(i)].value = p.value.flatten()[i].item<double>();
    for (int t = 1; t <= 8; ++t) {
        p.grad.copy_(at::randn({40, 25}).mul(std::pow(10.0, t - 6)));
        for (int64_t i = 0; i < 1000; ++i) {
            want[static_cast<size_t>(i)].step(p.grad.flatten()[i].item<double>(), 0.008 * 2 * 0.5, 0.65, 0.95,
                                              1e-8, 0.3 * 0.5);
        }
        rule.step(p, {.lr_scale = 0.5, .t = t});
        EXPECT_TRUE(p.grad.eq(0).all().item<bool>());
    }
    for (int64_t i = 0; i < 1000; ++i) {
        const oracle::Adam& w = want[static_cast<size_t>(i)];
        EXPECT_NEAR(p.value.flatten()[i].item<double>(), w.value,
                    3e-6);  // eight roundings of numbers below 4
        EXPECT_NEAR(rule.state()[0].tensor.flatten()[i].item<double>(), w.m, 1e-6 * (100 + std::abs(w.m)));
        EXPECT_NEAR(rule.state()[1].tensor.flatten()[i].item<double>(), w.v, 1e-6 * w.v);
    }
}

class AdamDecays : public ::testing::TestWithParam<AdamConfig::Decay> {};
INSTANTIATE_TEST_SUITE_P(All, AdamDecays,
                         ::testing::Values(AdamConfig::Decay::decoupled, AdamConfig::Decay::cautious,
                                           AdamConfig::Decay::cautious_strict));

TEST_P(AdamDecays, FusedAgreesWithAten) {
    const AdamConfig::Decay kind = GetParam();
    for (const auto value_type : {at::kFloat, at::kBFloat16}) {
        for (const auto state_type : {at::kFloat, at::kBFloat16}) {
            at::manual_seed(4);
            at::Tensor p = at::randn({3000}).to(value_type), g = at::randn({3000}).to(value_type);
            at::Tensor m = at::randn({3000}).to(state_type), v = at::rand({3000}).to(state_type);
            const std::array a{p.clone(), g.clone(), m.clone(), v.clone()};
            const ops::AdamStep step{0.65, 0.95, 1e-8, 0.01, 0.01, kind};
            ops::adam_update(a[0], a[1], a[2], a[3], step);
            ops::reference::adam_update(p, g, m, v, step);
            // Another contraction of the same fp32 arithmetic: one unit in the last place of numbers below 4.
            EXPECT_LE(max_difference(a[0], p), value_type == at::kFloat ? 4.8e-7 : 0.0157);
            EXPECT_LE(max_difference(a[2], m), state_type == at::kFloat ? 4.8e-7 : 0.0157);
            EXPECT_LE(max_difference(a[3], v), state_type == at::kFloat ? 4.8e-7 : 0.0157);
            EXPECT_LE(a[0].ne(p).sum().item<int64_t>(), value_type == at::kFloat ? 3000 : 15);
        }
    }
}

// Elements that the update does not move are where the two cautious kinds differ.
TEST(Adam, CautiousDecayTakesOnlyWhatTheUpdateMovesToZero) {
    for (const auto& [kind, still] : {std::pair{AdamConfig::Decay::cautious, 2.0F - 0.5F * 2},
                                      {AdamConfig::Decay::cautious_strict, 2.0F}}) {
        at::Tensor p = at::tensor({2.0F, 2.0F, 2.0F}), g = at::tensor({1.0F, -1.0F, 0.0F});
        const at::Tensor m = at::zeros({3}), v = at::zeros({3});
        // u = 0.25 * 0.5 g / sqrt(0.25 g^2) = 0.25 sign(g)
        ops::adam_update(p, g, m, v, {0.5, 0.75, 1e-30, 0.25, 0.5, kind});
        EXPECT_TRUE(at::allclose(p, at::tensor({2.0F - 0.25F - 1.0F, 2.25F, still}), 1e-6));
    }
}

TEST(Adam, DecayWithTheSquareOfTheRateCountsLrMulTwice) {
    AdamConfig config = adam_of_record43();
    config.weight_decay = 0.005;
    config.decay = AdamConfig::Decay::cautious;
    config.decay_coefficient = AdamConfig::DecayCoefficient::lr_squared;
    const Adam rule(config, row(75, 5), adam_parameter({2, 2}, at::kFloat));
    EXPECT_DOUBLE_EQ(rule.step_numbers({.lr_scale = 0.5, .t = 1})[2],
                     (0.008 * 75 * 0.5) * (0.008 * 75 * 0.5) * 0.005 * 5);
}

TEST(Adam, ARowsBetasReplaceThoseOfAll) {
    Parameter p = adam_parameter({2, 2}, at::kFloat);
    OptimParamConfig own = row(1, 1);
    own.betas = {0.9, 0.99};
    Adam rule(adam_of_record43(), own, p);
    p.grad.fill_(1);
    rule.step(p, {});
    EXPECT_TRUE(at::allclose(rule.state()[0].tensor, at::full({2, 2}, 0.1), 1e-6));
    EXPECT_TRUE(at::allclose(rule.state()[1].tensor, at::full({2, 2}, 0.01), 1e-5));
}

// Rows of a table without gradient and state are passed over; the result must be what a full pass gives.
TEST(Adam, IdleElementsAreExactlyUntouched) {
    for (const double eps : {1e-8, 0.0}) {
        at::manual_seed(4);
        at::Tensor p = at::randn({64, 300}).to(at::kBFloat16), g = at::zeros_like(p), m = at::zeros_like(p),
                   v = at::zeros_like(p);
        p[3][0] = -0.0;
        g[10][7] = 1;
        m[20][8] = 1;
        v[30][9] = 1;
        g[40][1] = -0.0;
        const std::array a{p.clone(), g.clone(), m.clone(), v.clone()};
        const ops::AdamStep step{0.65, 0.95, eps, 0.01, 0};
        ops::adam_update(a[0], a[1], a[2], a[3], step);
        ops::reference::adam_update(p, g, m, v, step);
        EXPECT_TRUE(at::allclose(a[0], p, 0, 0, /*equal_nan=*/true)) << eps;
        EXPECT_EQ(p.isnan().any().item<bool>(), eps == 0);
        EXPECT_TRUE(a[0].view(at::kShort)[3].equal(p.view(at::kShort)[3]) || eps == 0);  // signs of zeros too
        EXPECT_TRUE(a[2].equal(m));
        EXPECT_TRUE(a[3].equal(v));
    }
}

TEST(Adam, StateOfVectorsIsFp32) {
    const Parameter scalars = adam_parameter({64}, at::kFloat), table = adam_parameter({8, 4}, at::kBFloat16);
    EXPECT_EQ(
        Adam(adam_of_record43(AdamConfig::StateDtype::bf16), {}, scalars).state()[0].tensor.scalar_type(),
        at::kFloat);
    EXPECT_EQ(Adam(adam_of_record43(AdamConfig::StateDtype::bf16), {}, table).state()[0].tensor.scalar_type(),
              at::kBFloat16);
}

TEST(Adam, NanGradientsAreVisible) {
    Parameter p = adam_parameter({4, 300}, at::kBFloat16);
    Adam rule(adam_of_record43(AdamConfig::StateDtype::bf16), {}, p);
    p.grad[2][5] = std::numeric_limits<float>::quiet_NaN();
    rule.step(p, {});
    EXPECT_TRUE(p.value[2][5].isnan().item<bool>());
    EXPECT_EQ(p.value.isnan().sum().item<int64_t>(), 1);
}

// Summing the gradients of micro-batches in bf16, divided before or after. By a power of two, as record 43's
// 8, the order changes nothing; by another number both orders lose as much, in different elements. fp32 sums
// lose nothing.
struct Accumulated {
    at::Tensor last, first, fp32;                // sum then divide; divide then sum; sum then divide in fp32
    double last_error, first_error, fp32_error;  // relative to the exact sum, in the norm
};

Accumulated accumulate(int64_t count, double divisor) {
    at::manual_seed(8);
    constexpr int64_t kSize = 100'000;
    Accumulated out{
        at::zeros({kSize}, at::kBFloat16), at::zeros({kSize}, at::kBFloat16), at::zeros({kSize}), 0, 0, 0};
    at::Tensor exact = at::zeros({kSize}, at::kDouble);
    for (int64_t micro = 0; micro < count; ++micro) {
        const at::Tensor g = at::randn({kSize}, at::kDouble);
        exact += g / divisor;
        out.last += g.to(at::kBFloat16);
        out.first += (g / divisor).to(at::kBFloat16);
        out.fp32 += g.to(at::kFloat);
    }
    out.last /= divisor;
    out.fp32 /= divisor;
    const auto error = [&](const at::Tensor& sum) {
        return ((sum.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
    };
    out.last_error = error(out.last);
    out.first_error = error(out.first);
    out.fp32_error = error(out.fp32);
    return out;
}

TEST(Accumulation, OrderDoesNotMatterForPowersOfTwo) {
    const Accumulated sums = accumulate(8, 8);
    EXPECT_TRUE(sums.last.equal(sums.first));
    EXPECT_LT(sums.fp32_error, 1e-6);
    EXPECT_GT(sums.last_error, 1000 * sums.fp32_error);  // measured 4e-3 against 6e-8
    EXPECT_LT(sums.last_error, 8e-3);
}

TEST(Accumulation, OrderChangesTheRoundingOtherwise) {
    const Accumulated sums = accumulate(6, 6);
    EXPECT_GT(sums.last.ne(sums.first).sum().item<int64_t>(), 10'000);
    EXPECT_GT(sums.last_error, 1000 * sums.fp32_error);
    EXPECT_GT(sums.first_error, 1000 * sums.fp32_error);
    // Measured 3.9e-3 and 3.6e-3: the division at the end is one rounding more.
    EXPECT_NEAR(sums.last_error / sums.first_error, 1, 0.2);
}

}  // namespace
}  // namespace speedrun
