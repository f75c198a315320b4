#include "ops/mix.h"

#include <array>
#include <cstddef>

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

// n sources, their coefficients, and the same in fp64. Where `factors`, all but the first source have a
// factor a token and column beside their coefficient.
struct MixInputs {
    MixInputs(const Setting& s, int64_t n, bool factors) : coefficients(at::randn({n}, s.saved())) {
        const int64_t columns = s.d % 4 == 0 ? 4 : 1;
        for (int64_t j = 0; j < n; ++j) {
            buffers.push_back(s.buffer());
            MixSource source{buffers.back().view, {}, 0};
            if (factors && j > 0) {
                source.factor = at::rand({s.tokens, columns + 3}, s.saved()).narrow(1, 1, columns);
                source.offset = j == 1 ? 0 : 0.5;
            }
            sources.push_back(source);
        }
    }

    // c_j (offset_j + factor_j) for every element.
    at::Tensor weight(size_t j) const {
        const MixSource& source = sources[j];
        const double c = coefficients[static_cast<int64_t>(j)].item<double>();
        const at::Tensor ones = at::ones_like(wide(source.x));
        return source.factor.defined() ? c * (source.offset + spread(wide(source.factor), source.x)) * ones
                                       : c * ones;
    }
    static at::Tensor spread(const at::Tensor& columns, const at::Tensor& x) {
        return columns.repeat_interleave(x.size(1) / columns.size(1), 1);
    }

    at::Tensor sum() const {
        return sum_of([](const at::Tensor& term) { return term; });
    }
    at::Tensor sum_of_magnitudes() const {
        return sum_of([](const at::Tensor& term) { return term.abs(); });
    }

    template <class F>
    at::Tensor sum_of(const F& f) const {
        at::Tensor total = at::zeros_like(wide(sources[0].x));
        for (size_t j = 0; j < sources.size(); ++j) total += f(weight(j) * wide(sources[j].x));
        return total;
    }

    std::vector<Buffer> buffers;
    std::vector<MixSource> sources;
    at::Tensor coefficients;
};

// n products of up to three factors and n - 1 additions in fp32, then one rounding.
at::Tensor mix_bound(const Setting& s, const MixInputs& in) {
    const auto n = static_cast<double>(in.sources.size());
    return in.sum().abs() * s.store() + 2 * (n + 2) * s.arithmetic() * in.sum_of_magnitudes();
}

const std::vector<std::pair<int64_t, int64_t>> mix_shapes = {{1, 12}, {7, 20}, {33, 131}, {2100, 8}};

TEST(Mix, IsTheWeightedSum) {
    for (const auto& op : implementations<&mix, &reference::mix, &cuda::mix>()) {
        SCOPED_TRACE(op.name);
        for (int64_t n = 1; n <= static_cast<int64_t>(max_mix_sources); ++n) {
            for_each_setting({{7, 20}, {33, 131}}, [&](const Setting& s) {
                const MixInputs in(s, n, n % 2 == 0);
                const Buffer y = s.buffer();
                op(in.sources, in.coefficients, y.view);
                expect_within(y.view, in.sum(), mix_bound(s, in), "y");
                EXPECT_TRUE(y.rest_untouched());
                op(in.sources, in.coefficients, in.sources.back().x);
                EXPECT_TRUE(at::equal(in.sources.back().x, y.view)) << "in place";
            });
        }
    }
}

TEST(Mix, TakesHeads) {
    const at::Tensor buffer = at::randn({5, 3 * 24}), v = buffer.narrow(1, 48, 24).view({5, 2, 12});
    const at::Tensor ve = at::randn({5, 2, 12}), gate = at::rand({5, 2}), y = at::empty({5, 2, 12});
    const std::array<MixSource, 2> sources{{{v, {}, 0}, {ve, gate, 1}}};
    mix(sources, at::tensor({0.5F, 0.25F}), y);
    EXPECT_TRUE(at::allclose(y, 0.5 * v + 0.25 * (1 + gate.unsqueeze(-1)) * ve));
}

TEST(Mix, NormIsThatOfTheStoredSum) {
    for (const auto& op : implementations<&mix_norm, &reference::mix_norm, &cuda::mix_norm>()) {
        SCOPED_TRACE(op.name);
        for (const bool factors : {false, true})
            for_each_setting(mix_shapes, [&](const Setting& s) {
                const MixInputs in(s, 3, factors);
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
                op(in.sources, in.coefficients, eps, in.sources[0].x, in.sources[1].x, rstd);
                EXPECT_TRUE(at::equal(in.sources[0].x, first) && at::equal(in.sources[1].x, normed.view))
                    << "in place";
            });
    }
}

// Sums over channels and tokens of dy x (offset + factor), at most 32 rows a chunk in fp32: below d + 40
// roundings each.
void expect_coefficient(const Setting& s, const MixInputs& in, const at::Tensor& dy, int64_t j,
                        const at::Tensor& found, const at::Tensor& before) {
    const auto at = static_cast<size_t>(j);
    const at::Tensor products = dy * wide(in.sources[at].x) * in.weight(at) / wide(in.coefficients[j]);
    const double depth = static_cast<double>(s.d) + 44;
    const at::Tensor bound = s.arithmetic() * (depth * products.abs().sum() + 2 * wide(before).abs());
    expect_within(found, wide(before) + products.sum(), bound, "dc");
}

void expect_factor(const Setting& s, const MixInputs& in, const at::Tensor& dy, int64_t j,
                   const at::Tensor& found, const at::Tensor& before) {
    const MixSource& source = in.sources[static_cast<size_t>(j)];
    const at::Tensor products = wide(in.coefficients[j]) * dy * wide(source.x);
    const auto by_column = [&](const at::Tensor& x) {
        return x.view({s.tokens, source.factor.size(1), -1}).sum(-1);
    };
    const double depth = static_cast<double>(s.d) + 8;
    expect_within(found, before + by_column(products),
                  s.arithmetic() * (depth * by_column(products.abs()) + 2 * before.abs()), "dfactor");
}

// dx_0 written, dx_1 added to, dx_2 not wanted; dc_1 not wanted; factors of the last two.
TEST(Mix, BackwardIsTheGradient) {
    for (const auto& op : implementations<&mix_backward, &reference::mix_backward, &cuda::mix_backward>()) {
        SCOPED_TRACE(op.name);
        for (const bool factors : {false, true})
            for_each_setting({{1, 12}, {7, 20}, {33, 131}, {2100, 8}, {3, 2500}}, [&](const Setting& s) {
                const MixInputs in(s, 3, factors);
                const Buffer dy = s.buffer(), dx0 = s.buffer(), dx1 = s.buffer();
                const at::Tensor dc = at::randn({3}, s.saved()), dc_before = dc.clone();
                std::array<MixSourceGrad, 3> grads{{{in.sources[0], dx0.view, false, {}, true},
                                                    {in.sources[1], dx1.view, true, {}, false},
                                                    {in.sources[2], {}, false, {}, true}}};
                std::vector<at::Tensor> dfactor_before(3);
                for (size_t j = 1; factors && j < 3; ++j) {
                    grads[j].dfactor =
                        at::empty_strided(in.sources[j].factor.sizes(), in.sources[j].factor.strides(),
                                          in.sources[j].factor.options());
                    grads[j].dfactor.normal_();
                    dfactor_before[j] = wide(grads[j].dfactor);
                }
                op(dy.view, grads, in.coefficients, dc);

                const at::Tensor above = wide(dy.view);
                const at::Tensor expected0 = in.weight(0) * above;
                expect_within(dx0.view, expected0, expected0.abs() * (s.store() + 2 * s.arithmetic()),
                              "dx_0");
                const at::Tensor added = in.weight(1) * above,
                                 before = wide(dx1.before).narrow(1, dx1.view.storage_offset(), s.d);
                expect_within(
                    dx1.view, before + added,
                    (before + added).abs() * s.store() + 4 * s.arithmetic() * (before.abs() + added.abs()),
                    "dx_1");
                EXPECT_TRUE(dx0.rest_untouched() && dx1.rest_untouched());
                EXPECT_TRUE(at::equal(dc[1], dc_before[1]));
                for (const int64_t j : {0, 2}) expect_coefficient(s, in, above, j, dc[j], dc_before[j]);
                for (int64_t j = 1; factors && j < 3; ++j) {
                    const auto at = static_cast<size_t>(j);
                    expect_factor(s, in, above, j, grads[at].dfactor, dfactor_before[at]);
                }
            });
    }
}

TEST(Mix, BackwardMayOverwriteTheGradientAndTheSources) {
    for (const auto& op : implementations<&mix_backward, &reference::mix_backward, &cuda::mix_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_setting({{7, 20}, {33, 131}, {3, 2500}}, [&](const Setting& s) {
            const MixInputs in(s, 2, false);
            const Buffer dy = s.buffer(), dx0 = s.buffer(), dx1 = s.buffer();
            const at::Tensor dc = at::zeros({2}, s.saved()), dc_in_place = dc.clone();
            const auto run = [&](const at::Tensor& first, const at::Tensor& second,
                                 const at::Tensor& dcoefficients) {
                const std::array<MixSourceGrad, 2> grads{
                    {{in.sources[0], first, false, {}, true}, {in.sources[1], second, false, {}, true}}};
                op(dy.view, grads, in.coefficients, dcoefficients);
            };
            run(dx0.view, dx1.view, dc);
            run(dy.view, in.sources[0].x, dc_in_place);
            EXPECT_TRUE(at::equal(dy.view, dx0.view));
            EXPECT_TRUE(at::equal(in.sources[0].x, dx1.view));
            EXPECT_TRUE(at::equal(dc, dc_in_place));
        });
    }
}

TEST(Mix, BackwardTakesOneTensorTwice) {
    const at::Tensor x = at::randn({9, 40}), dy = at::randn({9, 40}), dx = at::randn({9, 40});
    const std::array<MixSourceGrad, 2> grads{
        {{{x, {}, 0}, dx, false, {}, false}, {{x, {}, 0}, dx, true, {}, false}}};
    mix_backward(dy, grads, at::tensor({0.75F, 0.5F}), at::Tensor());
    EXPECT_TRUE(at::allclose(dx, 1.25 * dy));
}

TEST(Mix, BackwardNeedsNoSourceWithoutItsCoefficient) {
    const at::Tensor dy = at::randn({9, 40}), dx = at::empty({9, 40});
    const std::array<MixSourceGrad, 1> grads{{{{}, dx, false, {}, false}}};
    mix_backward(dy, grads, at::tensor({2.0F}), at::Tensor());
    EXPECT_TRUE(at::equal(dx, 2 * dy));
}

TEST(Mix, IsRepeatable) {
    const Setting s{700, 96, at::kBFloat16, true};
    const MixInputs in(s, 4, true);
    const Buffer dy = s.buffer();
    expect_repeatable([&] {
        const at::Tensor y = at::empty({700, 96}, at::kBFloat16), normed = at::empty_like(y),
                         dx = at::empty_like(y);
        const at::Tensor rstd = at::empty({700}), dc = at::zeros({4});
        mix_norm(in.sources, in.coefficients, eps, y, normed, rstd);
        std::vector<MixSourceGrad> grads;
        for (const MixSource& source : in.sources) grads.push_back({source, {}, false, {}, true});
        grads[0].dx = dx;
        mix_backward(dy.view, grads, in.coefficients, dc);
        return std::vector<at::Tensor>{y, normed, rstd, dx, dc};
    });
}

}  // namespace
}  // namespace speedrun::ops
