#include "ops/smear.h"

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr int64_t n = 7;
const std::vector<std::pair<int64_t, int64_t>> smear_shapes = {
    {1, 12}, {2, 7}, {7, 20}, {33, 131}, {2100, 12}};

at::Tensor formula(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda) {
    const int64_t tokens = e.size(0);
    const at::Tensor tail = e.narrow(0, 1, tokens - 1), head = e.narrow(0, 0, tokens - 1);
    const at::Tensor gate = lambda * at::sigmoid(at::mm(tail.narrow(1, 0, n), w.reshape({-1, 1})));
    return at::cat({e.narrow(0, 0, 1), tail + gate * head});
}

// As in gate_test.cpp.
at::Tensor gate_error(const Setting& s, const at::Tensor& e, const at::Tensor& w) {
    const at::Tensor magnitudes = at::mv(wide(e).abs().narrow(1, 0, n), wide(w).abs().reshape({-1}));
    return s.arithmetic() * (static_cast<double>(n + 1) / 4 * magnitudes + 4);
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

TEST(Smear, IsTheFormula) {
    for (const auto& op : implementations<&smear, &reference::smear, &cuda::Fused::smear>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(smear_shapes, [&](const Setting& s) {
            const Buffer e = s.buffer(), out = s.buffer();
            const at::Tensor w = at::randn({1, n}, s.dtype), lambda = at::tensor(0.7, s.saved());
            const at::Tensor gate = s.saved_rows({s.tokens});
            op(e.view, w, lambda, out.view, gate);
            const at::Tensor expected = formula(wide(e.view), wide(w), wide(lambda));
            const at::Tensor previous = down(wide(e.view).abs());
            const at::Tensor slack = (gate_error(s, e.view, w) + 3 * s.arithmetic()).unsqueeze(-1) * previous;
            expect_within(out.view, expected, expected.abs() * (s.store() + s.arithmetic()) + slack, "out");
            EXPECT_EQ(gate[0].item<float>(), 0);
            EXPECT_TRUE(at::equal(out.view[0], e.view[0]));
            EXPECT_TRUE(out.rest_untouched());
        });
    }
}

TEST(Smear, BackwardIsTheGradient) {
    for (const auto& op :
         implementations<&smear_backward, &reference::smear_backward, &cuda::Fused::smear_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(smear_shapes, [&](const Setting& s) {
            const Buffer dout = s.buffer(), e = s.buffer(), de = s.buffer();
            const at::Tensor w = at::randn({n}, s.dtype), lambda = at::tensor({0.7}, s.saved());
            const at::Tensor dw = at::randn({n}, s.dtype), dw_before = wide(dw);
            const at::Tensor dlambda = at::randn({1}, s.saved()), dlambda_before = wide(dlambda);
            const at::Tensor out = at::empty({s.tokens, s.d}, s.dtype), gate = s.saved_rows({s.tokens});
            smear(e.view, w, lambda, out, gate);
            const at::Tensor e64 = leaf(e.view), w64 = leaf(w), lambda64 = leaf(lambda);
            formula(e64, w64, lambda64).backward(wide(dout.view));

            op(dout.view, e.view, w, lambda, gate, de.view, dw, dlambda);
            const double u = s.arithmetic();
            const at::Tensor error = gate_error(s, e.view, w), adout = wide(dout.view).abs(),
                             ae = wide(e.view).abs();
            const at::Tensor inner = (adout * down(ae)).sum(-1);  // bounds <dout_t, e_{t-1}>
            // dlogit = lambda <dout, e> g (1 - g), |lambda| < 1: roundings of a sum of d, and the gate's
            // error.
            const at::Tensor dlogit = inner * ((static_cast<double>(s.d) + 4) / 4 * u + 2 * error);
            at::Tensor slack = 2 * u * adout + up((error + 3 * u).unsqueeze(-1) * adout);
            slack.narrow(1, 0, n) += (dlogit + 3 * u * inner).unsqueeze(-1) * wide(w).abs();
            expect_within(de.view, e64.grad(), e64.grad().abs() * s.store() + slack, "de");
            EXPECT_TRUE(de.rest_untouched());

            const double rows = 40;  // at most 32 rows a chunk are added up in fp32
            const at::Tensor expected_dw =
                dw_before + (w64.grad().defined() ? w64.grad() : at::zeros_like(w64));
            const at::Tensor dw_slack =
                ((dlogit + rows * u * inner).unsqueeze(-1) * ae.narrow(1, 0, n)).sum(0);
            expect_within(dw, expected_dw, expected_dw.abs() * (s.store() + u) + dw_slack, "dw");
            const at::Tensor sum_slack = (inner * (error + (static_cast<double>(s.d) + rows) * u)).sum();
            const at::Tensor expected = dlambda_before + lambda64.grad();
            expect_within(dlambda, expected, expected.abs() * u + sum_slack, "dlambda");
        });
    }
}

TEST(Smear, IsRepeatable) {
    const Buffer e(700, 24, at::kBFloat16, true), dout(700, 24, at::kBFloat16, true);
    const at::Tensor w = at::randn({n}), lambda = at::tensor(0.3F);
    expect_repeatable([&] {
        const at::Tensor out = at::empty({700, 24}, at::kBFloat16), de = at::empty_like(out),
                         gate = at::empty({700});
        const at::Tensor dw = at::zeros_like(w), dlambda = at::zeros({});
        smear(e.view, w, lambda, out, gate);
        smear_backward(dout.view, e.view, w, lambda, gate, de, dw, dlambda);
        return std::vector<at::Tensor>{out, gate, de, dw, dlambda};
    });
}

}  // namespace
}  // namespace speedrun::ops
