#include "ops/norm.h"

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

at::Tensor formula(const at::Tensor& x) {
    return x * (x.square().mean(-1, true) + eps).rsqrt();
}

// A sum of d squares in fp32 is off by at most d units, relatively; root, product and mean add a few more.
double forward_error(const Setting& s) {
    return (static_cast<double>(s.d) + 8) * s.arithmetic();
}

TEST(RmsNorm, IsTheFormula) {
    for (const auto& op : implementations<&rms_norm, &reference::rms_norm, &cuda::rms_norm>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(row_shapes, [&](const Setting& s) {
            const Buffer x = s.buffer(), y = s.buffer();
            const at::Tensor rstd = s.saved_rows({s.tokens});
            op(x.view, eps, y.view, rstd);
            const at::Tensor expected = formula(wide(x.view));
            expect_within(y.view, expected, expected.abs() * (s.store() + forward_error(s)), "y");
            const at::Tensor r = (wide(x.view).square().mean(-1) + eps).rsqrt();
            expect_within(rstd, r, r * forward_error(s), "rstd");
            EXPECT_TRUE(y.rest_untouched());
        });
    }
}

TEST(RmsNorm, BackwardIsTheGradient) {
    for (const auto& op :
         implementations<&rms_norm_backward, &reference::rms_norm_backward, &cuda::rms_norm_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(row_shapes, [&](const Setting& s) {
            const Buffer x = s.buffer(), dy = s.buffer(), dx = s.buffer(), y = s.buffer();
            const at::Tensor rstd = s.saved_rows({s.tokens});
            rms_norm(x.view, eps, y.view, rstd);
            const at::Tensor in = leaf(x.view);
            formula(in).backward(wide(dy.view));

            const at::Tensor r = wide(rstd).unsqueeze(-1), ax = wide(x.view).abs(), ady = wide(dy.view).abs();
            // Each term carries at most three factors of rstd and one sum of d products.
            const at::Tensor slack =
                4 * forward_error(s) * (r * ady + r.pow(3) * ax * (ax * ady).mean(-1, true));
            for (const bool accumulate : {false, true}) {
                const at::Tensor expected = in.grad() + (accumulate ? wide(dx.view) : at::zeros_like(in));
                op(dy.view, x.view, rstd, dx.view, accumulate);
                expect_within(dx.view, expected, expected.abs() * (s.store() + s.arithmetic()) + slack, "dx");
                EXPECT_TRUE(dx.rest_untouched());
            }
        });
    }
}

TEST(RmsNorm, MayWorkInPlace) {
    for_each_setting(row_shapes, [&](const Setting& s) {
        const Buffer x = s.buffer(), dy = s.buffer(), y = s.buffer(), dx = s.buffer();
        const at::Tensor rstd = s.saved_rows({s.tokens});
        rms_norm(x.view, eps, y.view, rstd);
        rms_norm_backward(dy.view, x.view, rstd, dx.view, false);
        rms_norm_backward(dy.view, x.view, rstd, dy.view, false);
        EXPECT_TRUE(at::equal(dy.view, dx.view));
        dy.reset();
        rms_norm(x.view, eps, x.view, rstd);
        EXPECT_TRUE(at::equal(x.view, y.view));
        x.reset();
        rms_norm_backward(dy.view, x.view, rstd, x.view, false);
        EXPECT_TRUE(at::equal(x.view, dx.view));
    });
}

TEST(RmsNorm, OfZerosIsZero) {
    const at::Tensor x = at::zeros({3, 24}), y = at::ones({3, 24}), rstd = at::empty({3});
    rms_norm(x, eps, y, rstd);
    EXPECT_TRUE(at::equal(y, x));
    EXPECT_TRUE(at::allclose(rstd, at::full({3}, 1 / std::sqrt(eps))));
}

TEST(RmsNorm, IsRepeatable) {
    const Buffer x(700, 96, at::kBFloat16, true), dy(700, 96, at::kBFloat16, true);
    expect_repeatable([&] {
        const at::Tensor y = at::empty({700, 96}, at::kBFloat16), dx = at::empty_like(y),
                         rstd = at::empty({700});
        rms_norm(x.view, eps, y, rstd);
        rms_norm_backward(dy.view, x.view, rstd, dx, false);
        return std::vector<at::Tensor>{y, dx, rstd};
    });
}

}  // namespace
}  // namespace speedrun::ops
