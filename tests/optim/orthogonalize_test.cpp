#include "ops/optim/orthogonalize.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <vector>

#include "compare.h"
#include "oracle.h"

namespace speedrun {
namespace {

using Settings = MatrixConfig::Orthogonalize;

Settings fp32() {
    return {.dtype = Dtype::fp32};
}

// Largest difference from the fp64 transcription over all matrices of a batch.
double distance(const at::Tensor& got, const at::Tensor& g) {
    double worst = 0;
    for (int64_t i = 0; i < g.size(0); ++i) {
        const oracle::Matrix want = oracle::polar_express(to_oracle(g[i])), have = to_oracle(got[i]);
        for (size_t j = 0; j < want.at.size(); ++j)
            worst = std::max(worst, std::abs(want.at[j] - have.at[j]));
    }
    return worst;
}

at::Tensor random(at::IntArrayRef shape, uint64_t seed = 1) {
    at::manual_seed(seed);
    return at::randn(shape);
}

class Shapes : public ::testing::TestWithParam<std::array<int64_t, 3>> {};

TEST_P(Shapes, MatchTheTranscription) {
    const auto [n, rows, cols] = GetParam();
    const at::Tensor g = random({n, rows, cols});
    const at::Tensor wide = ops::orthogonalize(g, fp32());
    EXPECT_EQ(wide.sizes(), g.sizes());
    EXPECT_EQ(wide.scalar_type(), at::kFloat);
    // The five steps multiply a small singular value, and its rounding error, by up to 8.2 * 4 * 3.9 * 3.3
    // * 2.3 = 990; 6e-8 * 990 = 6e-5 of a value of at most 1.
    EXPECT_LT(distance(wide, g), 6e-5);
    const at::Tensor narrow = ops::orthogonalize(g, {});
    EXPECT_EQ(narrow.scalar_type(), at::kBFloat16);
    // bf16 rounds 2^16 times coarser, so the same bound is useless element by element: measured below 0.03
    // relative to the norm for all of these shapes; a wrong coefficient gives more than 0.3.
    const at::Tensor difference = narrow.to(at::kFloat) - wide;
    EXPECT_LE(difference.norm().item<double>(), 0.1 * wide.norm().item<double>());
}

INSTANTIATE_TEST_SUITE_P(Orthogonalize, Shapes,
                         ::testing::Values(std::array<int64_t, 3>{3, 16, 64},
                                           std::array<int64_t, 3>{3, 64, 16},
                                           std::array<int64_t, 3>{5, 48, 48},
                                           std::array<int64_t, 3>{1, 1, 12}, std::array<int64_t, 3>{1, 12, 1},
                                           std::array<int64_t, 3>{10, 6, 12}, std::array<int64_t, 3>{1, 1, 1},
                                           std::array<int64_t, 3>{2, 33, 130},
                                           std::array<int64_t, 3>{0, 4, 4}));

double polynomial(double s) {
    for (const auto& [a, b, c] : ops::orthogonalize_steps(Settings::Method::polar_express, 5)) {
        s *= a + b * s * s + c * s * s * s * s;
    }
    return s;
}

TEST(Orthogonalize, ThePolynomialBringsSingularValuesIntoABand) {
    for (double s = 0.003; s <= 1; s += 1e-5) {
        EXPECT_GT(polynomial(s), 0.85) << s;
        EXPECT_LT(polynomial(s), 1.15) << s;
    }
}

TEST(Orthogonalize, SingularValuesAreThePolynomialsOfTheInputs) {
    const at::Tensor g = random({4, 96, 160});
    const at::Tensor inputs = at::linalg_svdvals(g.to(at::kDouble)),
                     got = at::linalg_svdvals(ops::orthogonalize(g, fp32()).to(at::kDouble));
    for (int64_t i = 0; i < 4; ++i) {
        const double divisor = g[i].norm().item<double>() * 1.02 + 1e-6;
        std::vector<double> want;
        for (int64_t j = 0; j < 96; ++j) want.push_back(polynomial(inputs[i][j].item<double>() / divisor));
        std::ranges::sort(want, std::greater<>());
        for (int64_t j = 0; j < 96; ++j)
            EXPECT_NEAR(got[i][j].item<double>(), want[static_cast<size_t>(j)], 1e-4);
    }
    const at::Tensor narrow = at::linalg_svdvals(ops::orthogonalize(g, {}).to(at::kDouble));
    EXPECT_GT(narrow.min().item<double>(), 0.8);  // the band, and 5 % for bf16
    EXPECT_LT(narrow.max().item<double>(), 1.2);
}

TEST(Orthogonalize, NewtonSchulzSpreadsSingularValuesAroundOne) {
    Settings config = fp32();
    config.method = Settings::Method::newton_schulz;
    const at::Tensor g = random({2, 64, 128});
    const at::Tensor values = at::linalg_svdvals(ops::orthogonalize(g, config).to(at::kDouble));
    // The published quintic oscillates in [0.68, 1.13] for five iterations on such matrices.
    EXPECT_GT(values.min().item<double>(), 0.65);
    EXPECT_LT(values.max().item<double>(), 1.15);
    EXPECT_GT(values.max().item<double>() - values.min().item<double>(), 0.1);
    EXPECT_EQ(ops::orthogonalize_steps(config.method, 7).size(), 7u);
}

TEST(Orthogonalize, KeepsTheSingularVectors) {
    const at::Tensor g = random({1, 24, 40}).to(at::kDouble);
    const auto [u, s, vh] = at::linalg_svd(g, false);
    const at::Tensor x = ops::orthogonalize(g.to(at::kFloat), fp32()).to(at::kDouble);
    const at::Tensor rotated = u.mT().matmul(x).matmul(vh.mT())[0];
    const at::Tensor off = rotated - rotated.diag().diag();
    EXPECT_LT(off.abs().max().item<double>(), 1e-4);
    EXPECT_GT(rotated.diag().min().item<double>(), 0.85);
}

TEST(Orthogonalize, ZeroStaysZero) {
    for (const Settings& config : {Settings{}, fp32()}) {
        EXPECT_TRUE(ops::orthogonalize(at::zeros({2, 8, 16}), config).eq(0).all().item<bool>());
    }
}

TEST(Orthogonalize, RankDeficientMatricesKeepTheirRank) {
    const at::Tensor g = at::matmul(random({1, 20, 3}), random({1, 3, 32}, 2));
    const at::Tensor values = at::linalg_svdvals(ops::orthogonalize(g, fp32()).to(at::kDouble))[0];
    EXPECT_GT(values[2].item<double>(), 0.85);
    EXPECT_LT(values[3].item<double>(), 1e-3);  // rounding errors of 1e-7, multiplied by up to 990
}

TEST(Orthogonalize, MatricesOfABatchDoNotMix) {
    at::Tensor g = random({3, 8, 12});
    const at::Tensor alone = ops::orthogonalize(g.narrow(0, 1, 1), fp32());
    g[0].fill_(std::numeric_limits<float>::quiet_NaN());
    const at::Tensor x = ops::orthogonalize(g, fp32());
    EXPECT_TRUE(x[0].isnan().all().item<bool>());
    EXPECT_LT((x[1] - alone[0]).abs().max().item<double>(), 1e-6);
    EXPECT_FALSE(x[2].isnan().any().item<bool>());
}

TEST(Orthogonalize, IterationsAreLimited) {
    using Method = Settings::Method;
    EXPECT_EQ(ops::orthogonalize_steps(Method::polar_express, 2).size(), 2u);
    EXPECT_ANY_THROW(ops::orthogonalize_steps(Method::polar_express, 6));
    EXPECT_ANY_THROW(ops::orthogonalize_steps(Method::newton_schulz, 0));
}

}  // namespace
}  // namespace speedrun
