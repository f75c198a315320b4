#include "ops/gemm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "util/error.h"

namespace speedrun::ops {
namespace {

at::Tensor matrix(int64_t rows, int64_t cols, bool transposed, at::ScalarType dtype) {
    return transposed ? at::randn({cols, rows}).to(dtype).t() : at::randn({rows, cols}).to(dtype);
}

// The largest |found - wanted| / (|a| |b|)_ij: rounding errors of a sum are relative to the sum of
// magnitudes.
double relative_error(const at::Tensor& found, const at::Tensor& wanted, const at::Tensor& magnitude) {
    return ((found.to(at::kDouble) - wanted).abs() / magnitude).max().item<double>();
}

// An fp32 dot product of length K, summed in blocks, stays under K * 2^-24 in the worst case, and near
// sqrt(K) * 2^-24 for random signs; 4 times that is never reached by chance. A bf16 result adds its rounding,
// 2^-8 of the value.
double tolerance(int64_t k, at::ScalarType out) {
    return 4 * std::sqrt(static_cast<double>(k) + 1) * 0x1p-24 + (out == at::kBFloat16 ? 0x1p-8 : 0);
}

using Shape = std::tuple<int64_t, int64_t, int64_t>;
const std::vector<Shape> gemm_shapes = {{1, 1, 1},      {1, 7, 3},       {5, 1, 2},     {3, 5, 1},
                                        {17, 33, 65},   {64, 64, 64},    {129, 127, 7}, {130, 300, 513},
                                        {255, 129, 99}, {31, 515, 1030}, {1, 768, 256}, {256, 1, 300},
                                        {7, 9, 20000}};
const std::vector<std::pair<at::ScalarType, at::ScalarType>> dtypes = {
    {at::kFloat, at::kFloat}, {at::kBFloat16, at::kFloat}, {at::kBFloat16, at::kBFloat16}};

TEST(Gemm, EqualsDoubleForEveryTranspositionDtypeAndOddShape) {
    at::manual_seed(1);
    for (const auto& [m, n, k] : gemm_shapes) {
        for (const auto& [in, out] : dtypes) {
            for (int variant = 0; variant < 8; ++variant) {
                const bool accumulate = (variant & 4) != 0;
                const at::Tensor a = matrix(m, k, (variant & 1) != 0, in),
                                 b = matrix(k, n, (variant & 2) != 0, in);
                const at::Tensor c = accumulate ? at::randn({m, n}).to(out) : at::full({m, n}, NAN).to(out);
                const at::Tensor before = accumulate ? c.to(at::kDouble) : at::zeros({m, n}, at::kDouble);
                const at::Tensor ad = a.to(at::kDouble), bd = b.to(at::kDouble);
                gemm(a, b, c, accumulate);
                const double error =
                    relative_error(c, before + ad.mm(bd), before.abs() + ad.abs().mm(bd.abs()));
                EXPECT_LE(error, tolerance(k, out))
                    << m << 'x' << n << 'x' << k << ' ' << in << " -> " << out << " variant " << variant;
            }
        }
    }
}

TEST(Gemm, WritesOnlyItsPartOfALargerTensor) {
    const at::Tensor a = at::ones({65, 40}), b = at::ones({40, 70});
    const at::Tensor whole = at::full({70, 100}, 3.0F);
    gemm(a, b, whole.slice(0, 2, 67).slice(1, 5, 75));
    at::Tensor wanted = at::full({70, 100}, 3.0F);
    wanted.slice(0, 2, 67).slice(1, 5, 75).fill_(40);
    EXPECT_TRUE(whole.equal(wanted));
}

TEST(Gemm, ReadsSlicesOfLargerTensors) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        // small integers: every sum is exact
        const at::Tensor big = at::randint(-3, 4, {200, 300}).to(dtype);
        const at::Tensor a = big.slice(0, 3, 133).slice(1, 7, 88),
                         b = big.slice(0, 10, 160).slice(1, 100, 181).t();
        const at::Tensor c = at::empty({130, 150});
        gemm(a, b, c);
        EXPECT_TRUE(c.equal(a.to(at::kFloat).mm(b.to(at::kFloat))));
    }
}

TEST(Gemm, RepeatsBitForBit) {
    for (const auto& [in, out] : dtypes) {
        const at::Tensor a = at::randn({1000, 700}).to(in), b = at::randn({700, 333}).to(in);
        const at::Tensor first = at::empty({1000, 333}, out), again = at::empty_like(first);
        gemm(a, b, first);
        for (int i = 0; i < 5; ++i) {
            gemm(a, b, again);
            ASSERT_TRUE(first.equal(again));
        }
    }
}

TEST(Gemm, CarriesNanAndInfinity) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const at::Tensor a = at::ones({40, 50}).to(dtype), b = at::ones({50, 60}).to(dtype);
        a[3][4] = NAN;
        a[5][6] = INFINITY;
        const at::Tensor c = at::empty({40, 60}, dtype);
        gemm(a, b, c);
        EXPECT_TRUE(c[3].isnan().all().item<bool>());
        EXPECT_TRUE(c[5].isinf().all().item<bool>());
        EXPECT_EQ(c.isfinite().sum().item<int64_t>(), 38 * 60);
    }
}

TEST(Gemm, RefusesWhatDoesNotFit) {
    const at::Tensor a = at::ones({4, 6}), b = at::ones({6, 8}), c = at::ones({4, 8});
    EXPECT_THROW(gemm(a, b.t(), c), InternalError);
    EXPECT_THROW(gemm(a, b.to(at::kBFloat16), c), InternalError);
    EXPECT_THROW(gemm(a, b, c.to(at::kBFloat16)), InternalError);
    EXPECT_THROW(gemm(a, b, at::ones({8, 4}).t()), InternalError);
    EXPECT_THROW(gemm(a, at::ones({12, 16}).slice(0, 0, 12, 2).slice(1, 0, 16, 2), c), InternalError);
    EXPECT_THROW(gemm(at::ones({4, 0}), at::ones({0, 8}), c), InternalError);
}

TEST(BatchedGemm, EqualsBaddbmmInDouble) {
    at::manual_seed(2);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        for (const auto& [batch, m, n, k] : std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>>{
                 {1, 40, 50, 60}, {3, 65, 33, 129}, {7, 128, 128, 31}, {2, 300, 257, 70}}) {
            const at::Tensor a = at::randn({batch, m, k}).to(dtype), b = at::randn({batch, n, k}).to(dtype);
            const at::Tensor addend = at::randn({batch, m, n}).to(dtype), c = at::empty_like(addend);
            const at::Tensor ad = a.to(at::kDouble), bd = b.to(at::kDouble).transpose(1, 2);
            const at::Tensor magnitude = addend.to(at::kDouble).abs() + ad.abs().bmm(bd.abs());
            batched_gemm(a, b.transpose(1, 2), c, 0.75, -0.5, addend);
            EXPECT_LE(relative_error(c, 0.75 * ad.bmm(bd) - 0.5 * addend, magnitude), tolerance(k, dtype));
            batched_gemm(a, b.transpose(1, 2), c);
            EXPECT_LE(relative_error(c, ad.bmm(bd), magnitude), tolerance(k, dtype));
            const at::Tensor before = c.to(at::kDouble);
            batched_gemm(a, b.transpose(1, 2), c, 1, 1, c);
            EXPECT_LE(relative_error(c, before + ad.bmm(bd), before.abs() + magnitude), tolerance(k, dtype));
        }
    }
}

TEST(BatchedGemm, ServesAMatrixTimesItsTranspose) {
    const at::Tensor x = at::randint(-3, 4, {5, 70, 130}).to(at::kFloat), c = at::empty({5, 70, 70});
    batched_gemm(x, x.transpose(1, 2), c);
    EXPECT_TRUE(c.equal(x.bmm(x.transpose(1, 2))));
}

// X X^T and b A + c A A, of Polar Express: the bits of the whole product, at sizes on and off the tiles'
// edges and larger than a panel's rows.
TEST(BatchedGram, IsTheWholeProduct) {
    at::manual_seed(3);
    const int threads = at::get_num_threads();
    for (const int count : {1, 2}) {
        at::set_num_threads(count);
        for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
            for (const auto& [batch, n, k] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
                     {1, 1, 3}, {3, 64, 65}, {2, 129, 40}, {1, 300, 513}, {5, 192, 64}, {1, 200, 70000}}) {
                const at::Tensor x = at::randn({batch, n, k}).to(dtype);
                const at::Tensor gram = at::full({batch, n, n}, NAN, dtype), whole = at::empty_like(gram);
                batched_gram(x, gram);
                batched_gemm(x, x.transpose(1, 2), whole);
                EXPECT_TRUE(gram.equal(whole)) << n << ' ' << k << ' ' << dtype;
                EXPECT_TRUE(gram.equal(gram.transpose(1, 2)));
                const at::Tensor polynomial = at::full_like(gram, NAN);
                batched_gram(gram, polynomial, 0.5, -2.25, gram);
                batched_gemm(gram, gram, whole, 0.5, -2.25, gram);
                EXPECT_TRUE(polynomial.equal(whole)) << n << ' ' << dtype;
            }
    }
    at::set_num_threads(threads);
    EXPECT_THROW(batched_gram(at::ones({1, 4, 6}), at::ones({1, 4, 8})), InternalError);
    EXPECT_THROW(batched_gram(at::ones({4, 6}), at::ones({4, 4})), InternalError);
}

TEST(GemmBackend, NamesTheArithmetic) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) EXPECT_FALSE(gemm_backend(dtype).empty());
}

}  // namespace
}  // namespace speedrun::ops
