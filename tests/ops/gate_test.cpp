#include "ops/gate.h"

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr int64_t heads = 3, n = 7;
const std::vector<std::pair<int64_t, int64_t>> head_shapes = {
    {1, heads * 4}, {7, heads * 12}, {33, heads * 44}, {9, heads * 128}, {2100, heads * 4}};

at::Tensor as_heads(const at::Tensor& x) {
    return x.unflatten(1, {heads, x.size(1) / heads});
}

at::ScalarType weight_type(const Setting& s, bool narrow) {
    return narrow ? at::kBFloat16 : s.saved();
}

at::Tensor formula(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w) {
    return y * at::sigmoid(at::mm(x.narrow(1, 0, n), w.t())).unsqueeze(-1);
}

// A logit's error is n + 1 roundings of its terms; the sigmoid's slope is at most 1/4, its own arithmetic
// (exp, sum, quotient) good to 4 units.
at::Tensor gate_error(const Setting& s, const at::Tensor& x, const at::Tensor& w) {
    const at::Tensor magnitudes = at::mm(wide(x).abs().narrow(1, 0, n), wide(w).abs().t());
    return s.arithmetic() * (static_cast<double>(n + 1) / 4 * magnitudes + 4);
}

TEST(HeadGate, IsTheFormula) {
    for (const auto& op : implementations<&head_gate, &reference::head_gate, &cuda::Fused::head_gate>()) {
        SCOPED_TRACE(op.name);
        for (const bool narrow : {false, true}) {
            for_each_setting(head_shapes, [&](const Setting& s) {
                const Buffer y = s.buffer(), x = s.buffer(), out = s.buffer();
                const at::Tensor w = at::randn({heads, n}, weight_type(s, narrow));
                const at::Tensor gate = s.saved_rows({s.tokens, heads});
                op(as_heads(y.view), x.view, w, as_heads(out.view), gate);
                const at::Tensor expected = formula(wide(as_heads(y.view)), wide(x.view), wide(w));
                const at::Tensor error = gate_error(s, x.view, w);
                expect_within(gate, at::sigmoid(at::mm(wide(x.view).narrow(1, 0, n), wide(w).t())), error,
                              "gate");
                expect_within(as_heads(out.view), expected,
                              expected.abs() * (s.store() + s.arithmetic()) +
                                  2 * error.unsqueeze(-1) * wide(as_heads(y.view)).abs(),
                              "out");
                EXPECT_TRUE(out.rest_untouched());
                op(as_heads(y.view), x.view, w, as_heads(y.view), gate);
                EXPECT_TRUE(at::equal(y.view, out.view)) << "in place";
            });
        }
    }
}

TEST(HeadGate, BackwardIsTheGradient) {
    for (const auto& op : implementations<&head_gate_backward, &reference::head_gate_backward,
                                          &cuda::Fused::head_gate_backward>()) {
        SCOPED_TRACE(op.name);
        for (const bool narrow : {false, true}) {
            for_each_setting(head_shapes, [&](const Setting& s) {
                const Buffer dout = s.buffer(), y = s.buffer(), x = s.buffer(), dy = s.buffer(),
                             dx = s.buffer();
                const at::Tensor w = at::randn({heads, n}, weight_type(s, narrow));
                const at::Tensor dw = at::randn({heads, n}, weight_type(s, narrow)), dw_before = wide(dw);
                const at::Tensor dx_before = wide(dx.view), out = at::empty_like(as_heads(y.view));
                const at::Tensor gate = s.saved_rows({s.tokens, heads});
                head_gate(as_heads(y.view), x.view, w, out, gate);
                const at::Tensor y64 = leaf(as_heads(y.view)), x64 = leaf(x.view), w64 = leaf(w);
                formula(y64, x64, w64).backward(wide(as_heads(dout.view)));

                op(as_heads(dout.view), as_heads(y.view), x.view, w, gate, as_heads(dy.view), dx.view, dw);
                const at::Tensor error = gate_error(s, x.view, w), adout = wide(as_heads(dout.view)).abs();
                expect_within(
                    as_heads(dy.view), y64.grad(),
                    y64.grad().abs() * (s.store() + s.arithmetic()) + 2 * error.unsqueeze(-1) * adout, "dy");
                EXPECT_TRUE(dy.rest_untouched() && dx.rest_untouched());

                // dlogit = <dout, y> g (1 - g): D + 3 roundings of a sum, and the gate's own error (slope at
                // most 1).
                const at::Tensor inner = (adout * wide(as_heads(y.view)).abs()).sum(-1);
                const double depth = static_cast<double>(s.d / heads) + 3;
                const at::Tensor dlogit = inner * (depth / 4 * s.arithmetic() + 2 * error);
                const at::Tensor expected_dx = dx_before + x64.grad();
                const at::Tensor slack = at::zeros_like(expected_dx);
                const auto terms = [&](const at::Tensor& per_head) {
                    return at::mm(per_head, wide(w).abs());
                };
                slack.narrow(1, 0, n).copy_(terms(dlogit) +
                                            (heads + 2) * s.arithmetic() *
                                                (terms(inner) + dx_before.narrow(1, 0, n).abs()));
                expect_within(dx.view, expected_dx, expected_dx.abs() * s.store() + slack, "dx");

                const at::Tensor expected_dw = dw_before + w64.grad(),
                                 ax = wide(x.view).abs().narrow(1, 0, n);
                // At most 32 rows a chunk in fp32.
                const at::Tensor dw_slack =
                    at::mm((dlogit + 40 * s.arithmetic() * inner).t(), ax) + s.arithmetic() * dw_before.abs();
                expect_within(dw, expected_dw,
                              expected_dw.abs() * store_unit(dw.scalar_type()) + 2 * dw_slack, "dw");

                const at::Tensor again = at::zeros_like(dw), dx_again = at::zeros_like(dx.view);
                op(as_heads(dout.view), as_heads(y.view), x.view, w, gate, as_heads(dout.view), dx_again,
                   again);
                EXPECT_TRUE(at::equal(dout.view, dy.view)) << "in place of dout";
            });
        }
    }
}

TEST(HeadGate, LeavesOtherChannelsOfTheInputAlone) {
    const at::Tensor y = at::randn({5, 2, 8}), x = at::randn({5, 16}), w = at::randn({2, 12}),
                     dx = at::randn({5, 16});
    const at::Tensor before = dx.clone(), gate = at::rand({5, 2}), dy = at::empty_like(y),
                     dw = at::zeros({2, 12});
    head_gate_backward(y, y, x, w, gate, dy, dx, dw);
    EXPECT_TRUE(at::equal(dx.narrow(1, 12, 4), before.narrow(1, 12, 4)));
    EXPECT_FALSE(at::equal(dx.narrow(1, 0, 12), before.narrow(1, 0, 12)));
    const at::Tensor without_others = before.narrow(1, 0, 12).clone();
    head_gate_backward(y, y, x, w, gate, dy, without_others, dw);
    EXPECT_TRUE(at::equal(without_others, dx.narrow(1, 0, 12)));
}

TEST(HeadGate, SaturatesWithoutNan) {
    const at::Tensor y = at::ones({2, 1, 4}), x = at::tensor({200.0F, -200.0F}).view({2, 1});
    const at::Tensor out = at::empty_like(y), gate = at::empty({2, 1});
    head_gate(y, x, at::ones({1, 1}), out, gate);
    EXPECT_TRUE(at::equal(gate, at::tensor({1.0F, 0.0F}).view({2, 1})));
}

TEST(HeadGate, IsRepeatable) {
    const Buffer y(700, heads * 8, at::kBFloat16, true), x(700, 24, at::kBFloat16, true);
    const at::Tensor w = at::randn({heads, n});
    expect_repeatable([&] {
        const at::Tensor out = at::empty({700, heads, 8}, at::kBFloat16), dy = at::empty_like(out);
        const at::Tensor gate = at::empty({700, heads}), dx = at::zeros({700, 24}, at::kBFloat16),
                         dw = at::zeros_like(w);
        head_gate(as_heads(y.view), x.view, w, out, gate);
        head_gate_backward(out, as_heads(y.view), x.view, w, gate, dy, dx, dw);
        return std::vector<at::Tensor>{out, gate, dy, dx, dw};
    });
}

}  // namespace
}  // namespace speedrun::ops
