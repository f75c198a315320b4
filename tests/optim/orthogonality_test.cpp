// The bands that each way to orthogonalise is known for: what `speedrun bench orthogonalize` prints.
#include "optim/orthogonality.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "config/matrix_rules.h"

namespace speedrun {
namespace {

MatrixConfig config_of(const std::string& rule, int64_t iters, Dtype dtype = Dtype::fp32) {
    MatrixConfig config = matrix_defaults(rule);
    config.orthogonalize.iters = iters;
    config.orthogonalize.dtype = dtype;
    return config;
}

SingularValues after(const MatrixConfig& config, int64_t rows, int64_t cols, double condition) {
    at::manual_seed(1);
    const at::Tensor g = matrices_of_condition(2, rows, cols, condition);
    const auto type = config.orthogonalize.dtype == Dtype::bf16 ? at::kBFloat16 : at::kFloat;
    return singular_values(orthogonalized(g.to(type), config));
}

TEST(Orthogonality, MatricesHaveTheConditionAskedFor) {
    for (const double condition : {1.0, 10.0, 1e4}) {
        const SingularValues values = singular_values(matrices_of_condition(3, 24, 40, condition));
        EXPECT_NEAR(values.max, 1, 1e-6);
        EXPECT_NEAR(values.min * condition, 1, 1e-6 * condition);  // fp32 of a matrix of norm about 1
    }
}

TEST(Orthogonality, SingularValuesOfKnownMatrices) {
    const at::Tensor x = at::diag(at::tensor({0.5, 0.8, 1.1, 1.3})).unsqueeze(0);
    const SingularValues values = singular_values(x);
    EXPECT_NEAR(values.min, 0.5, 1e-12);
    EXPECT_NEAR(values.max, 1.3, 1e-12);
    EXPECT_EQ(values.in_band, 0.5);
}

class Bands : public ::testing::TestWithParam<std::array<int64_t, 2>> {};

// [0.7, 1.2] is what the quintic was tuned for, for singular values from about 1e-2 of the norm up. Normal
// numbers in squares have one next to 0, which stays below.
TEST_P(Bands, NewtonSchulz) {
    const auto [rows, cols] = GetParam();
    for (const Dtype dtype : {Dtype::fp32, Dtype::bf16}) {
        const SingularValues moderate = after(config_of("muon", 5, dtype), rows, cols, 10);
        // bf16 rounds 2^-8 of a value in each of five iterations.
        const double slack = dtype == Dtype::bf16 ? 0.02 : 0.0;
        EXPECT_GT(moderate.min, 0.67 - slack);
        EXPECT_LT(moderate.max, 1.2 + slack);
        EXPECT_GT(moderate.in_band, 0.7);
        EXPECT_GT(after(config_of("muon", 10, dtype), rows, cols, 1e3).min, 0.67 - slack);
    }
}

// Tighter, and from 3e-3 of the norm up after five iterations; see orthogonalize_test for the polynomial.
TEST_P(Bands, PolarExpress) {
    const auto [rows, cols] = GetParam();
    for (const Dtype dtype : {Dtype::fp32, Dtype::bf16}) {
        const SingularValues values = after(config_of("normuon", 5, dtype), rows, cols, 10);
        const double slack = dtype == Dtype::bf16 ? 0.05 : 0.0;
        EXPECT_GT(values.min, 0.85 - slack);
        EXPECT_LT(values.max, 1.15 + slack);
        EXPECT_EQ(values.in_band, 1);
    }
}

// 15 iterations of the preconditioner are exact where the condition is small, and fall short where it is not:
// a small eigenvalue of G G^T grows by 9/4 in each.
TEST_P(Bands, Preconditioner) {
    const auto [rows, cols] = GetParam();
    const SingularValues values = after(config_of("mommuon", 15), rows, cols, 10);
    EXPECT_NEAR(values.min, 1, 1e-3);
    EXPECT_NEAR(values.max, 1, 1e-3);
    EXPECT_LT(after(config_of("mommuon", 15), rows, cols, 1e5).min, 0.7);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Bands,
                         ::testing::Values(std::array<int64_t, 2>{64, 64}, std::array<int64_t, 2>{48, 160},
                                           std::array<int64_t, 2>{160, 48},
                                           std::array<int64_t, 2>{256, 256}));

TEST(Orthogonality, FlopOfTheProducts) {
    MatrixConfig::Orthogonalize config{.method = MatrixConfig::Orthogonalize::Method::newton_schulz,
                                       .iters = 5};
    // X X^T and (...) X: 2 * 2 * 3^2 * 7; A A: 2 * 3^3.
    EXPECT_EQ(orthogonalize_flop(3, 7, config), 5 * (4 * 9 * 7 + 2 * 27));
    EXPECT_EQ(orthogonalize_flop(7, 3, config), orthogonalize_flop(3, 7, config));
    config.method = MatrixConfig::Orthogonalize::Method::none;
    EXPECT_EQ(orthogonalize_flop(3, 7, config), 0);
}

}  // namespace
}  // namespace speedrun
