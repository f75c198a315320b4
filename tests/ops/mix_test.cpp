#include "ops/mix.h"

#include <array>
#include <cstddef>

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr double eps = 1.1920928955078125e-07;

// n sources, their coefficients, and the same in fp64.
struct Inputs {
    Inputs(const Setting& s, int64_t n) : coefficients(at::randn({n}, s.saved())) {
        for (int64_t j = 0; j < n; ++j) {
            buffers.push_back(s.buffer());
            sources.push_back(buffers.back().view);
        }
    }

    double coefficient(size_t j) const { return coefficients[static_cast<int64_t>(j)].item<double>(); }

    at::Tensor sum() const {
        return sum_of([](const at::Tensor& term) { return term; });
    }
    at::Tensor sum_of_magnitudes() const {
        return sum_of([](const at::Tensor& term) { return term.abs(); });
    }

    template <class F>
    at::Tensor sum_of(const F& f) const {
        at::Tensor total = at::zeros_like(wide(sources[0]));
        for (size_t j = 0; j < sources.size(); ++j) total += f(coefficient(j) * wide(sources[j]));
        return total;
    }

    std::vector<Buffer> buffers;
    std::vector<at::Tensor> sources;
    at::Tensor coefficients;
};

// n products and n - 1 additions in fp32, then one rounding.
at::Tensor mix_bound(const Setting& s, const Inputs& in) {
    const auto n = static_cast<double>(in.sources.size());
    return in.sum().abs() * s.store() + 2 * n * s.arithmetic() * in.sum_of_magnitudes();
}

const std::vector<std::pair<int64_t, int64_t>> mix_shapes = {{1, 12}, {7, 20}, {33, 131}, {2100, 8}};

TEST(Mix, IsTheWeightedSum) {
    for (const auto& op : implementations<&mix, &reference::mix, &cuda::Fused::mix>()) {
        SCOPED_TRACE(op.name);
        for (int64_t n = 1; n <= static_cast<int64_t>(max_mix_sources); ++n) {
            for_each_setting({{7, 20}, {33, 131}}, [&](const Setting& s) {
                const Inputs in(s, n);
                const Buffer y = s.buffer();
                op(in.sources, in.coefficients, y.view);
                expect_within(y.view, in.sum(), mix_bound(s, in), "y");
                EXPECT_TRUE(y.rest_untouched());
                op(in.sources, in.coefficients, in.sources.back());
                EXPECT_TRUE(at::equal(in.sources.back(), y.view)) << "in place";
            });
        }
    }
}

TEST(Mix, TakesHeads) {
    const at::Tensor buffer = at::randn({5, 3 * 24}), v = buffer.narrow(1, 48, 24).view({5, 2, 12});
    const at::Tensor ve = at::randn({5, 2, 12}), y = at::empty({5, 2, 12});
    const std::array<at::Tensor, 2> sources = {v, ve};
    mix(sources, at::tensor({0.5F, 0.25F}), y);
    EXPECT_TRUE(at::allclose(y, 0.5 * v + 0.25 * ve));
}

TEST(Mix, NormIsThatOfTheStoredSum) {
    for (const auto& op : implementations<&mix_norm, &reference::mix_norm, &cuda::Fused::mix_norm>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(mix_shapes, [&](const Setting& s) {
            const Inputs in(s, 3);
            const Buffer y = s.buffer(), normed = s.buffer();
            const at::Tensor rstd = s.saved_rows({s.tokens});
            op(in.sources, in.coefficients, eps, y.view, normed.view, rstd);
            expect_within(y.view, in.sum(), mix_bound(s, in), "y");
            const at::Tensor stored = wide(y.view), r = (stored.square().mean(-1, true) + eps).rsqrt();
            const double error = (static_cast<double>(s.d) + 8) * s.arithmetic();  // as in norm_test.cpp
            expect_within(normed.view, stored * r, (stored * r).abs() * (s.store() + error), "normed");
            expect_within(rstd, r, r * error, "rstd");
            EXPECT_TRUE(y.rest_untouched() && normed.rest_untouched());
            const at::Tensor first = y.view.clone();
            op(in.sources, in.coefficients, eps, in.sources[0], in.sources[1], rstd);
            EXPECT_TRUE(at::equal(in.sources[0], first) && at::equal(in.sources[1], normed.view))
                << "in place";
        });
    }
}

// ds_0 written, ds_1 added to, ds_2 not wanted; dc_1 not wanted.
TEST(Mix, BackwardIsTheGradient) {
    const std::array<uint8_t, 3> accumulate = {0, 1, 0}, wants_dc = {1, 0, 1};
    for (const auto& op :
         implementations<&mix_backward, &reference::mix_backward, &cuda::Fused::mix_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_setting({{1, 12}, {7, 20}, {33, 131}, {2100, 8}, {3, 2500}}, [&](const Setting& s) {
            const Inputs in(s, 3);
            const Buffer dy = s.buffer(), ds0 = s.buffer(), ds1 = s.buffer();
            const at::Tensor dc = at::randn({3}, s.saved()), dc_before = dc.clone();
            const std::array<at::Tensor, 3> dsources = {ds0.view, ds1.view, at::Tensor()};
            op(dy.view, in.sources, in.coefficients, dsources, accumulate, dc, wants_dc);

            const at::Tensor above = wide(dy.view);
            const at::Tensor expected0 = in.coefficient(0) * above;
            expect_within(ds0.view, expected0, expected0.abs() * (s.store() + 2 * s.arithmetic()), "ds_0");
            const at::Tensor added = in.coefficient(1) * above,
                             before = wide(ds1.before).narrow(1, ds1.view.storage_offset(), s.d);
            expect_within(
                ds1.view, before + added,
                (before + added).abs() * s.store() + 2 * s.arithmetic() * (before.abs() + added.abs()),
                "ds_1");
            EXPECT_TRUE(ds0.rest_untouched() && ds1.rest_untouched());

            EXPECT_TRUE(at::equal(dc[1], dc_before[1]));
            for (const int64_t j : {0, 2}) {
                const at::Tensor products = above * wide(in.sources[static_cast<size_t>(j)]);
                // Sums of at most d products, added over at most 32 rows a chunk: below d + 40 roundings
                // each.
                const double depth = static_cast<double>(s.d) + 40;
                const at::Tensor bound =
                    s.arithmetic() * (depth * products.abs().sum() + 2 * wide(dc_before[j]).abs());
                expect_within(dc[j], wide(dc_before[j]) + products.sum(), bound, "dc");
            }
        });
    }
}

TEST(Mix, BackwardMayOverwriteTheGradientAndTheSources) {
    const std::array<uint8_t, 2> write = {0, 0}, wants_dc = {1, 1};
    for (const auto& op :
         implementations<&mix_backward, &reference::mix_backward, &cuda::Fused::mix_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_setting({{7, 20}, {33, 131}, {3, 2500}}, [&](const Setting& s) {
            const Inputs in(s, 2);
            const Buffer dy = s.buffer(), ds0 = s.buffer(), ds1 = s.buffer();
            const at::Tensor dc = at::zeros({2}, s.saved()), dc_in_place = dc.clone();
            const std::array<at::Tensor, 2> apart = {ds0.view, ds1.view}, in_place = {dy.view, in.sources[0]};
            op(dy.view, in.sources, in.coefficients, apart, write, dc, wants_dc);
            op(dy.view, in.sources, in.coefficients, in_place, write, dc_in_place, wants_dc);
            EXPECT_TRUE(at::equal(dy.view, ds0.view));
            EXPECT_TRUE(at::equal(in.sources[0], ds1.view));
            EXPECT_TRUE(at::equal(dc, dc_in_place));
        });
    }
}

TEST(Mix, BackwardTakesOneTensorTwice) {
    const at::Tensor x = at::randn({9, 40}), dy = at::randn({9, 40}), dx = at::randn({9, 40});
    const std::array<at::Tensor, 2> sources = {x, x}, dsources = {dx, dx};
    mix_backward(dy, sources, at::tensor({0.75F, 0.5F}), dsources, std::array<uint8_t, 2>{0, 1}, at::Tensor(),
                 std::array<uint8_t, 2>{0, 0});
    EXPECT_TRUE(at::allclose(dx, 1.25 * dy));
}

TEST(Mix, BackwardNeedsNoSourceWithoutItsCoefficient) {
    const at::Tensor dy = at::randn({9, 40}), dx = at::empty({9, 40});
    const std::array<at::Tensor, 1> sources = {at::Tensor()}, dsources = {dx};
    const std::array<uint8_t, 1> no = {0};
    mix_backward(dy, sources, at::tensor({2.0F}), dsources, no, at::Tensor(), no);
    EXPECT_TRUE(at::equal(dx, 2 * dy));
}

TEST(Mix, IsRepeatable) {
    const Setting s{700, 96, at::kBFloat16, true};
    const Inputs in(s, 4);
    const Buffer dy = s.buffer();
    expect_repeatable([&] {
        const at::Tensor y = at::empty({700, 96}, at::kBFloat16), normed = at::empty_like(y),
                         ds = at::empty_like(y);
        const at::Tensor rstd = at::empty({700}), dc = at::zeros({4});
        mix_norm(in.sources, in.coefficients, eps, y, normed, rstd);
        const std::array<at::Tensor, 4> dsources = {ds, at::Tensor(), at::Tensor(), at::Tensor()};
        mix_backward(dy.view, in.sources, in.coefficients, dsources, std::array<uint8_t, 4>{}, dc,
                     std::array<uint8_t, 4>{1, 1, 1, 1});
        return std::vector<at::Tensor>{y, normed, rstd, ds, dc};
    });
}

}  // namespace
}  // namespace speedrun::ops
