#include "ops/rotary.h"

#include <array>

#include "implementations.h"
#include "row_op_testing.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr int64_t heads = 3;

// d in the settings is that of a token: heads * D.
const std::vector<std::pair<int64_t, int64_t>> head_shapes = {
    {1, heads * 4}, {7, heads * 12}, {33, heads * 64}, {40, heads * 130}, {600, heads * 6}};

at::Tensor as_heads(const at::Tensor& x) {
    return x.unflatten(1, {heads, x.size(1) / heads});
}

using Layout = RotaryTables::Layout;

struct Form {
    Layout layout = Layout::halves;
    bool paired = false;
};
constexpr std::array forms{Form{Layout::halves, false}, Form{Layout::pairs, false},
                           Form{Layout::pairs, true}};

// For `tokens` and some positions more.
RotaryTables make_tables(int64_t tokens, int64_t half, at::ScalarType dtype, Form form = {}) {
    const int64_t positions = (form.paired ? 2 : 1) * tokens + 5;
    const at::Tensor theta = at::outer(at::arange(positions, at::kFloat), at::logspace(0, -3, half));
    return {theta.cos().to(dtype), theta.sin().to(dtype), form.layout, form.paired};
}

// The channels in the order of halves, and back.
at::Tensor in_halves(const at::Tensor& x, Layout layout) {
    return layout == Layout::halves ? x : x.unflatten(-1, {-1, 2}).transpose(-1, -2).flatten(-2);
}
at::Tensor out_of_halves(const at::Tensor& x, Layout layout) {
    return layout == Layout::halves ? x : x.unflatten(-1, {2, -1}).transpose(-1, -2).flatten(-2);
}

at::Tensor formula(const at::Tensor& x, const RotaryTables& tables) {
    const auto n = in_halves(x * (x.square().mean(-1, true) + eps).rsqrt(), tables.layout).chunk(2, -1);
    const auto rows = [&](const at::Tensor& table) {
        std::vector<at::Tensor> of_heads;
        for (int64_t h = 0; h < heads; ++h)
            of_heads.push_back(tables.paired ? wide(table).slice(0, h % 2, h % 2 + 2 * x.size(0), 2)
                                             : wide(table).narrow(0, 0, x.size(0)));
        return at::stack(of_heads, 1);
    };
    const at::Tensor c = rows(tables.cos), s = rows(tables.sin);
    return out_of_halves(at::cat({n[0] * c + n[1] * s, -n[0] * s + n[1] * c}, -1), tables.layout);
}

// Both halves of a pair enter each of its numbers, so bounds are in terms of |first| + |second|.
at::Tensor pair_sums(const at::Tensor& x, Layout layout) {
    const auto half = in_halves(wide(x).abs(), layout).chunk(2, -1);
    return out_of_halves(at::cat({half[0] + half[1], half[0] + half[1]}, -1), layout);
}

template <class Body>
void for_each_form(const Body& body) {
    for (const Form form : forms) for_each_setting(head_shapes, [&](const Setting& s) { body(s, form); });
}

double relative_error(const Setting& s) {
    return (static_cast<double>(s.d) / heads + 12) * s.arithmetic();
}

TEST(QkNormRotary, IsTheFormula) {
    for (const auto& op :
         implementations<&qk_norm_rotary, &reference::qk_norm_rotary, &cuda::qk_norm_rotary>()) {
        SCOPED_TRACE(op.name);
        for (const auto table_type : {at::kFloat, at::kBFloat16}) {
            for_each_form([&](const Setting& s, Form form) {
                const RotaryTables tables = make_tables(s.tokens, s.d / heads / 2, table_type, form);
                const Buffer x = s.buffer(), y = s.buffer();
                const at::Tensor rstd = s.saved_rows({s.tokens, heads});
                op(as_heads(x.view), tables, eps, as_heads(y.view), rstd);
                const at::Tensor in = wide(as_heads(x.view)), expected = formula(in, tables);
                const at::Tensor r = (in.square().mean(-1) + eps).rsqrt();
                expect_within(as_heads(y.view), expected,
                              expected.abs() * s.store() +
                                  relative_error(s) * r.unsqueeze(-1) * pair_sums(in, form.layout),
                              "y");
                expect_within(rstd, r, r * relative_error(s), "rstd");
                EXPECT_TRUE(y.rest_untouched());
                op(as_heads(x.view), tables, eps, as_heads(x.view), rstd);
                EXPECT_TRUE(at::equal(x.view, y.view)) << "in place";
            });
        }
    }
}

TEST(QkNormRotary, BackwardIsTheGradient) {
    for (const auto& op : implementations<&qk_norm_rotary_backward, &reference::qk_norm_rotary_backward,
                                          &cuda::qk_norm_rotary_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_form([&](const Setting& s, Form form) {
            const RotaryTables tables = make_tables(s.tokens, s.d / heads / 2, at::kBFloat16, form);
            const Buffer x = s.buffer(), dy = s.buffer(), dx = s.buffer();
            const at::Tensor out = at::empty({s.tokens, heads, s.d / heads}, s.dtype);
            const at::Tensor rstd = s.saved_rows({s.tokens, heads});
            qk_norm_rotary(as_heads(x.view), tables, eps, out, rstd);
            const at::Tensor in = leaf(as_heads(x.view));
            formula(in, tables).backward(wide(as_heads(dy.view)));

            op(as_heads(dy.view), as_heads(x.view), tables, rstd, as_heads(dx.view));
            const at::Tensor r = wide(rstd).unsqueeze(-1), ax = wide(as_heads(x.view)).abs();
            const at::Tensor dn = pair_sums(as_heads(dy.view), form.layout);
            const at::Tensor slack =
                4 * relative_error(s) * (r * dn + r.pow(3) * ax * (ax * dn).mean(-1, true));
            expect_within(as_heads(dx.view), in.grad(), in.grad().abs() * s.store() + slack, "dx");
            EXPECT_TRUE(dx.rest_untouched());

            op(as_heads(dy.view), as_heads(x.view), tables, rstd, as_heads(dy.view));
            EXPECT_TRUE(at::equal(dy.view, dx.view)) << "in place of dy";
            dy.reset();
            op(as_heads(dy.view), as_heads(x.view), tables, rstd, as_heads(x.view));
            EXPECT_TRUE(at::equal(x.view, dx.view)) << "in place of x";
        });
    }
}

TEST(QkNormRotary, RefusesTablesThatAreTooShort) {
    const at::Tensor x = at::randn({4, 2, 8}), y = at::empty_like(x), rstd = at::empty({4, 2});
    RotaryTables tables{at::ones({3, 4}), at::zeros({3, 4})};
    EXPECT_THROW(qk_norm_rotary(x, tables, eps, y, rstd), InternalError);
    tables = {at::ones({7, 4}), at::zeros({7, 4}), Layout::pairs, /*paired=*/true};
    EXPECT_THROW(qk_norm_rotary(x, tables, eps, y, rstd), InternalError);
}

TEST(QkNormRotary, IsRepeatable) {
    const Buffer x(300, heads * 32, at::kBFloat16, true), dy(300, heads * 32, at::kBFloat16, true);
    const RotaryTables tables = make_tables(300, 16, at::kBFloat16, {Layout::pairs, true});
    expect_repeatable([&] {
        const at::Tensor y = at::empty({300, heads, 32}, at::kBFloat16), dx = at::empty_like(y);
        const at::Tensor rstd = at::empty({300, heads});
        qk_norm_rotary(as_heads(x.view), tables, eps, y, rstd);
        qk_norm_rotary_backward(as_heads(dy.view), as_heads(x.view), tables, rstd, dx);
        return std::vector<at::Tensor>{y, dx, rstd};
    });
}

}  // namespace
}  // namespace speedrun::ops
