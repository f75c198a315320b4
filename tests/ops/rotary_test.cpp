#include "ops/rotary.h"

#include "implementations.h"
#include "row_op_testing.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr double eps = 1.1920928955078125e-07;
constexpr int64_t heads = 3;

// d in the settings is that of a token: heads * D.
const std::vector<std::pair<int64_t, int64_t>> head_shapes = {
    {1, heads * 4}, {7, heads * 12}, {33, heads * 64}, {40, heads * 130}, {600, heads * 6}};

at::Tensor as_heads(const at::Tensor& x) {
    return x.unflatten(1, {heads, x.size(1) / heads});
}

struct Tables {
    Tables(int64_t positions, int64_t half, at::ScalarType dtype) {
        const at::Tensor theta = at::outer(at::arange(positions, at::kFloat), at::logspace(0, -3, half));
        cos = theta.cos().to(dtype);
        sin = theta.sin().to(dtype);
    }
    at::Tensor cos, sin;
};

at::Tensor formula(const at::Tensor& x, const Tables& tables) {
    const auto n = (x * (x.square().mean(-1, true) + eps).rsqrt()).chunk(2, -1);
    const at::Tensor c = wide(tables.cos).narrow(0, 0, x.size(0)).unsqueeze(1);
    const at::Tensor s = wide(tables.sin).narrow(0, 0, x.size(0)).unsqueeze(1);
    return at::cat({n[0] * c + n[1] * s, -n[0] * s + n[1] * c}, -1);
}

// Both halves of a pair enter each of its numbers, so bounds are in terms of |first| + |second|.
at::Tensor pair_sums(const at::Tensor& x) {
    const auto half = wide(x).abs().chunk(2, -1);
    return at::cat({half[0] + half[1], half[0] + half[1]}, -1);
}

double relative_error(const Setting& s) {
    return (static_cast<double>(s.d) / heads + 12) * s.arithmetic();
}

TEST(QkNormRotary, IsTheFormula) {
    for (const auto& op :
         implementations<&qk_norm_rotary, &reference::qk_norm_rotary, &cuda::qk_norm_rotary>()) {
        SCOPED_TRACE(op.name);
        for (const auto table_type : {at::kFloat, at::kBFloat16}) {
            for_each_setting(head_shapes, [&](const Setting& s) {
                const Tables tables(s.tokens + 5, s.d / heads / 2, table_type);
                const Buffer x = s.buffer(), y = s.buffer();
                const at::Tensor rstd = s.saved_rows({s.tokens, heads});
                op(as_heads(x.view), tables.cos, tables.sin, eps, as_heads(y.view), rstd);
                const at::Tensor in = wide(as_heads(x.view)), expected = formula(in, tables);
                const at::Tensor r = (in.square().mean(-1) + eps).rsqrt();
                expect_within(
                    as_heads(y.view), expected,
                    expected.abs() * s.store() + relative_error(s) * r.unsqueeze(-1) * pair_sums(in), "y");
                expect_within(rstd, r, r * relative_error(s), "rstd");
                EXPECT_TRUE(y.rest_untouched());
                op(as_heads(x.view), tables.cos, tables.sin, eps, as_heads(x.view), rstd);
                EXPECT_TRUE(at::equal(x.view, y.view)) << "in place";
            });
        }
    }
}

TEST(QkNormRotary, BackwardIsTheGradient) {
    for (const auto& op : implementations<&qk_norm_rotary_backward, &reference::qk_norm_rotary_backward,
                                          &cuda::qk_norm_rotary_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(head_shapes, [&](const Setting& s) {
            const Tables tables(s.tokens + 5, s.d / heads / 2, at::kBFloat16);
            const Buffer x = s.buffer(), dy = s.buffer(), dx = s.buffer();
            const at::Tensor out = at::empty({s.tokens, heads, s.d / heads}, s.dtype);
            const at::Tensor rstd = s.saved_rows({s.tokens, heads});
            qk_norm_rotary(as_heads(x.view), tables.cos, tables.sin, eps, out, rstd);
            const at::Tensor in = leaf(as_heads(x.view));
            formula(in, tables).backward(wide(as_heads(dy.view)));

            op(as_heads(dy.view), as_heads(x.view), tables.cos, tables.sin, rstd, as_heads(dx.view));
            const at::Tensor r = wide(rstd).unsqueeze(-1), ax = wide(as_heads(x.view)).abs();
            const at::Tensor dn = pair_sums(as_heads(dy.view));
            const at::Tensor slack =
                4 * relative_error(s) * (r * dn + r.pow(3) * ax * (ax * dn).mean(-1, true));
            expect_within(as_heads(dx.view), in.grad(), in.grad().abs() * s.store() + slack, "dx");
            EXPECT_TRUE(dx.rest_untouched());

            op(as_heads(dy.view), as_heads(x.view), tables.cos, tables.sin, rstd, as_heads(dy.view));
            EXPECT_TRUE(at::equal(dy.view, dx.view)) << "in place of dy";
            dy.reset();
            op(as_heads(dy.view), as_heads(x.view), tables.cos, tables.sin, rstd, as_heads(x.view));
            EXPECT_TRUE(at::equal(x.view, dx.view)) << "in place of x";
        });
    }
}

TEST(QkNormRotary, RefusesTablesThatAreTooShort) {
    const at::Tensor x = at::randn({4, 2, 8}), y = at::empty_like(x), rstd = at::empty({4, 2});
    const Tables tables(3, 4, at::kFloat);
    EXPECT_THROW(qk_norm_rotary(x, tables.cos, tables.sin, eps, y, rstd), InternalError);
}

TEST(QkNormRotary, IsRepeatable) {
    const Buffer x(300, heads * 32, at::kBFloat16, true), dy(300, heads * 32, at::kBFloat16, true);
    const Tables tables(300, 16, at::kBFloat16);
    expect_repeatable([&] {
        const at::Tensor y = at::empty({300, heads, 32}, at::kBFloat16), dx = at::empty_like(y);
        const at::Tensor rstd = at::empty({300, heads});
        qk_norm_rotary(as_heads(x.view), tables.cos, tables.sin, eps, y, rstd);
        qk_norm_rotary_backward(as_heads(dy.view), as_heads(x.view), tables.cos, tables.sin, rstd, dx);
        return std::vector<at::Tensor>{y, dx, rstd};
    });
}

}  // namespace
}  // namespace speedrun::ops
