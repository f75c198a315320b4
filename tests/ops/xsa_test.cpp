#include "ops/xsa.h"

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr int64_t xsa_heads = 3;
const std::vector<std::pair<int64_t, int64_t>> xsa_shapes = {{1, 12}, {7, 36}, {33, 129}, {700, 24}};

// [T, H D] as [T, H, D]
at::Tensor split_heads(const at::Tensor& x) {
    return x.unflatten(1, {xsa_heads, x.size(1) / xsa_heads});
}

// In terms of the normed value, as record 82 has it.
at::Tensor xsa_formula(const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha) {
    const at::Tensor direction = v / v.norm(2, -1, true).clamp_min(1e-4);
    return x - at::tanh(alpha).unsqueeze(-1) * (x * direction).sum(-1, true) * direction;
}

// What sums over a head may be off by, relative to the sums of magnitudes: a rounding a term, and a few more.
double sum_error(const Setting& s) {
    return (static_cast<double>(s.d) / xsa_heads + 12) * s.arithmetic();
}

// tanh(alpha) (|x| . |v|) / |v|^2 |v|: what errors of the sums are multiplied by.
at::Tensor taken_at_most(const at::Tensor& x, const at::Tensor& v, const at::Tensor& alpha) {
    const at::Tensor square = (v * v).sum(-1, true).clamp_min(xsa_smallest_square);
    return at::tanh(alpha).abs().unsqueeze(-1) * (x.abs() * v.abs()).sum(-1, true) / square * v.abs();
}

// A number for each head, or columns of numbers that each token has.
at::Tensor alphas(const Setting& s, bool by_token) {
    return by_token ? at::randn({s.tokens, 3 * xsa_heads}, s.saved()).narrow(1, xsa_heads, xsa_heads)
                    : at::randn({xsa_heads}, s.saved());
}

// One value is nearly zero, below what counts.
struct XsaCase {
    XsaCase(const Setting& s, bool by_token) : x(s.buffer()), v(s.buffer()), alpha(alphas(s, by_token)) {
        split_heads(v.view)[s.tokens / 2].select(0, 1).mul_(1e-7);
    }
    Buffer x, v;
    at::Tensor alpha;
};

// Calls body with both forms of alpha.
template <class Body>
void for_each_case(const Body& body) {
    for_each_setting(xsa_shapes, [&](const Setting& s) {
        for (const bool by_token : {false, true}) {
            SCOPED_TRACE(by_token ? "alpha of tokens" : "alpha of heads");
            body(s, by_token);
        }
    });
}

TEST(Xsa, IsTheFormula) {
    for (const auto& op : implementations<&xsa, &reference::xsa, &cuda::xsa>()) {
        SCOPED_TRACE(op.name);
        for_each_case([&](const Setting& s, bool by_token) {
            const XsaCase in(s, by_token);
            const Buffer y = s.buffer();
            op(split_heads(in.x.view), split_heads(in.v.view), in.alpha, split_heads(y.view));
            const at::Tensor x = split_heads(wide(in.x.view)), v = split_heads(wide(in.v.view));
            const at::Tensor expected = xsa_formula(x, v, wide(in.alpha));
            const at::Tensor slack =
                sum_error(s) * taken_at_most(x, v, wide(in.alpha)) + s.arithmetic() * x.abs();
            expect_within(split_heads(y.view), expected, expected.abs() * s.store() + slack, "y");
            EXPECT_TRUE(y.rest_untouched());
        });
    }
}

TEST(Xsa, BackwardIsTheGradient) {
    for (const auto& op : implementations<&xsa_backward, &reference::xsa_backward, &cuda::xsa_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_case([&](const Setting& s, bool by_token) {
            const XsaCase in(s, by_token);
            const Buffer dy = s.buffer(), dx = s.buffer(), dv = s.buffer();
            const at::Tensor dalpha = alphas(s, by_token), before = wide(dalpha);
            op(split_heads(dy.view), split_heads(in.x.view), split_heads(in.v.view), in.alpha,
               split_heads(dx.view), split_heads(dv.view), dalpha);

            const at::Tensor x = leaf(split_heads(in.x.view)), v = leaf(split_heads(in.v.view)),
                             alpha = leaf(in.alpha), g = split_heads(wide(dy.view));
            xsa_formula(x, v, alpha).backward(g);
            const at::Tensor x64 = x.detach(), v64 = v.detach(), alpha64 = alpha.detach();
            const double error = sum_error(s);
            expect_within(split_heads(dx.view), x.grad(),
                          x.grad().abs() * s.store() + error * taken_at_most(g, v64, alpha64) +
                              s.arithmetic() * g.abs(),
                          "dx");
            // dv is a sum of three products of two sums each.
            const at::Tensor square = (v64 * v64).sum(-1, true).clamp_min(xsa_smallest_square);
            const at::Tensor r = (x64.abs() * v64.abs()).sum(-1, true) / square,
                             q = (g.abs() * v64.abs()).sum(-1, true) / square;
            const at::Tensor magnitudes =
                at::tanh(alpha64).abs().unsqueeze(-1) * (r * g.abs() + q * x64.abs() + 2 * r * q * v64.abs());
            expect_within(split_heads(dv.view), v.grad(), v.grad().abs() * s.store() + 3 * error * magnitudes,
                          "dv");
            // At most 32 rows a chunk in fp32.
            const at::Tensor each = (r * q * square).squeeze(-1), terms = by_token ? each : each.sum(0);
            const at::Tensor expected = before + alpha.grad();
            expect_within(
                dalpha, expected,
                (3 * error + 40 * s.arithmetic()) * terms + s.arithmetic() * (before.abs() + expected.abs()),
                "dalpha");
            EXPECT_TRUE(dx.rest_untouched() && dv.rest_untouched());
        });
    }
}

TEST(Xsa, IsRepeatable) {
    const Buffer x(700, 24, at::kBFloat16, true), v(700, 24, at::kBFloat16, true),
        dy(700, 24, at::kBFloat16, false);
    const at::Tensor alpha = at::randn({xsa_heads});
    expect_repeatable([&] {
        const at::Tensor y = at::empty({700, 24}, at::kBFloat16), dx = at::empty_like(y),
                         dv = at::empty_like(y), dalpha = at::zeros_like(alpha);
        xsa(split_heads(x.view), split_heads(v.view), alpha, split_heads(y));
        xsa_backward(split_heads(dy.view), split_heads(x.view), split_heads(v.view), alpha, split_heads(dx),
                     split_heads(dv), dalpha);
        return std::vector<at::Tensor>{y, dx, dv, dalpha};
    });
}

}  // namespace
}  // namespace speedrun::ops
