#include "ops/smear.h"

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

const std::vector<std::pair<int64_t, int64_t>> smear_shapes = {
    {1, 12}, {2, 7}, {7, 20}, {33, 131}, {2100, 12}};

// factor undefined: 1
at::Tensor formula(const at::Tensor& e, const at::Tensor& lambda, const at::Tensor& factor) {
    const int64_t tokens = e.size(0);
    const at::Tensor tail = e.narrow(0, 1, tokens - 1), head = e.narrow(0, 0, tokens - 1);
    const at::Tensor f =
        factor.defined() ? factor.narrow(0, 1, tokens - 1).unsqueeze(-1) : at::ones({1, 1}, e.options());
    return at::cat({e.narrow(0, 0, 1), tail + lambda * f * head});
}

// Row t becomes row t + 1, the first zero.
at::Tensor down(const at::Tensor& x) {
    const at::Tensor moved = x.roll(1, 0);
    moved.narrow(0, 0, 1).zero_();
    return moved;
}

at::Tensor up(const at::Tensor& x) {
    const at::Tensor moved = x.roll(-1, 0);
    moved.narrow(0, x.size(0) - 1, 1).zero_();
    return moved;
}

// With a factor a token, and with none.
template <class Body>
void for_each_factor(const Body& body) {
    for_each_setting(smear_shapes, [&](const Setting& s) {
        body(s, at::rand({s.tokens}, s.saved()));
        body(s, at::Tensor());
    });
}

TEST(Smear, IsTheFormula) {
    for (const auto& op : implementations<&smear, &reference::smear, &cuda::smear>()) {
        SCOPED_TRACE(op.name);
        for_each_factor([&](const Setting& s, const at::Tensor& factor) {
            const Buffer e = s.buffer(), out = s.buffer();
            const at::Tensor lambda = at::tensor(0.7, s.saved());
            op(e.view, lambda, factor, out.view);
            const at::Tensor factor64 = factor.defined() ? wide(factor) : factor;
            const at::Tensor expected = formula(wide(e.view), wide(lambda), factor64);
            const at::Tensor slack = 3 * s.arithmetic() * down(wide(e.view).abs());
            expect_within(out.view, expected, expected.abs() * (s.store() + s.arithmetic()) + slack, "out");
            EXPECT_TRUE(at::equal(out.view[0], e.view[0]));
            EXPECT_TRUE(out.rest_untouched());
        });
    }
}

TEST(Smear, BackwardIsTheGradient) {
    for (const auto& op :
         implementations<&smear_backward, &reference::smear_backward, &cuda::smear_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_factor([&](const Setting& s, const at::Tensor& factor) {
            const Buffer dout = s.buffer(), e = s.buffer(), de = s.buffer();
            const at::Tensor lambda = at::tensor({0.7}, s.saved());
            const at::Tensor dfactor = factor.defined() ? at::randn_like(factor) : factor;
            const at::Tensor dfactor_before = factor.defined() ? wide(dfactor) : factor;
            const at::Tensor dlambda = at::randn({1}, s.saved()), dlambda_before = wide(dlambda);
            const at::Tensor e64 = leaf(e.view), lambda64 = leaf(lambda),
                             factor64 = factor.defined() ? leaf(factor) : factor;
            formula(e64, lambda64, factor64).backward(wide(dout.view));

            op(dout.view, e.view, lambda, factor, de.view, dfactor, dlambda);
            const double u = s.arithmetic();
            const at::Tensor adout = wide(dout.view).abs(), ae = wide(e.view).abs();
            const at::Tensor inner = (adout * down(ae)).sum(-1);  // bounds <dout_t, e_{t-1}>
            expect_within(de.view, e64.grad(),
                          e64.grad().abs() * s.store() + 2 * u * adout + up(3 * u * adout), "de");
            EXPECT_TRUE(de.rest_untouched());

            const auto depth = static_cast<double>(s.d);
            if (factor.defined()) {
                const at::Tensor grad = s.tokens > 1 ? factor64.grad() : at::zeros_like(dfactor_before);
                const at::Tensor expected = dfactor_before + grad;
                expect_within(dfactor, expected, expected.abs() * u + inner * (depth + 4) * u, "dfactor");
            }
            const double rows = 40;  // at most 32 rows a chunk are added up in fp32
            const at::Tensor grad = s.tokens > 1 ? lambda64.grad() : at::zeros_like(dlambda_before);
            const at::Tensor expected = dlambda_before + grad;
            expect_within(dlambda, expected, expected.abs() * u + (inner * (depth + rows) * u).sum(),
                          "dlambda");
        });
    }
}

TEST(Smear, IsRepeatable) {
    const Buffer e(700, 24, at::kBFloat16, true), dout(700, 24, at::kBFloat16, true);
    const at::Tensor factor = at::rand({700}), lambda = at::tensor(0.3F);
    expect_repeatable([&] {
        const at::Tensor out = at::empty({700, 24}, at::kBFloat16), de = at::empty_like(out);
        const at::Tensor dfactor = at::zeros_like(factor), dlambda = at::zeros({});
        smear(e.view, lambda, factor, out);
        smear_backward(dout.view, e.view, lambda, factor, de, dfactor, dlambda);
        return std::vector<at::Tensor>{out, de, dfactor, dlambda};
    });
}

}  // namespace
}  // namespace speedrun::ops
