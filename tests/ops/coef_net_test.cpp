#include "ops/coef_net.h"

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr double net_scale = 0.1;

struct NetCase {
    int64_t tokens, hidden, outputs;
    at::ScalarType dtype, weight_dtype;

    at::ScalarType saved() const { return saved_type(dtype); }
    at::Tensor h() const { return at::randn({tokens, hidden}, dtype).mul_(2); }
    at::Tensor w() const { return at::randn({outputs, hidden}, weight_dtype); }
    at::Tensor b() const { return at::randn({outputs}, weight_dtype); }
    at::Tensor scale() const { return at::full({1}, net_scale, saved()); }
    CoefNetWeights weights() const { return {w(), b(), scale()}; }
};

// Sizes of the kernel for GPUs, and others, which go to ATen there.
template <class Body>
void for_each_net(const Body& body) {
    at::manual_seed(1);
    for (const auto& [tokens, hidden, outputs] :
         std::vector<std::array<int64_t, 3>>{{1, 64, 14}, {33, 64, 41}, {700, 64, 5}, {9, 24, 3}})
        for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble})
            for (const bool narrow : {false, true}) {
                SCOPED_TRACE(std::to_string(tokens) + " x " + std::to_string(hidden) + " x " +
                             std::to_string(outputs) + " " + at::toString(dtype) + (narrow ? " narrow" : ""));
                body(NetCase{tokens, hidden, outputs, dtype, narrow ? at::kBFloat16 : saved_type(dtype)});
            }
}

// gelu and its slope are good to 8 units of the larger of 1 and |x|: erf, exp and their sums.
at::Tensor gelu_error(const NetCase& c, const at::Tensor& h) {
    return 8 * arithmetic_unit(c.dtype) * h.abs().clamp_min(1);
}

TEST(CoefNetOp, IsTheFormula) {
    for (const auto& op : implementations<&coef_net, &reference::coef_net, &cuda::coef_net>()) {
        SCOPED_TRACE(op.name);
        for_each_net([&](const NetCase& c) {
            if (c.hidden != 64 && op.name.find("kernel") != std::string::npos) return;
            const at::Tensor h = c.h(), values = at::empty({c.tokens, c.outputs}, c.saved());
            const CoefNetWeights net = c.weights();
            op(h, net, values);
            const at::Tensor h64 = wide(h), w64 = wide(net.w);
            const at::Tensor expected = (at::mm(at::gelu(h64), w64.t()) + wide(net.b)) * wide(net.scale);
            const double unit = arithmetic_unit(c.dtype);
            const at::Tensor slack =
                at::mm(gelu_error(c, h64) + static_cast<double>(c.hidden + 3) * unit * h64.abs(),
                       w64.abs().t()) +
                3 * unit * wide(net.b).abs();
            expect_within(values, expected, slack * net_scale, "values");
        });
    }
}

TEST(CoefNetOp, BackwardIsTheGradient) {
    for (const auto& op :
         implementations<&coef_net_backward, &reference::coef_net_backward, &cuda::coef_net_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_net([&](const NetCase& c) {
            if (c.hidden != 64 && op.name.find("kernel") != std::string::npos) return;
            const at::Tensor h = c.h(), dvalues = at::randn({c.tokens, c.outputs}, c.saved());
            const CoefNetWeights net = c.weights(), grads = c.weights();
            const at::Tensor dh = at::empty_like(h), dw_before = wide(grads.w), db_before = wide(grads.b),
                             dscale_before = wide(grads.scale);
            op(dvalues, h, net, dh, grads);
            const at::Tensor h64 = leaf(h), w64 = leaf(net.w), b64 = leaf(net.b), scale64 = leaf(net.scale);
            ((at::mm(at::gelu(h64), w64.t()) + b64) * scale64).backward(wide(dvalues));

            const double unit = arithmetic_unit(c.dtype);
            const at::Tensor above = wide(dvalues).abs() * net_scale, from = h64.detach(),
                             weights = w64.detach().abs();
            const at::Tensor dh_slack =
                at::mm(above, weights) * (gelu_error(c, from) + static_cast<double>(c.outputs + 3) * unit *
                                                                    1.2);  // a slope is at most 1.13
            expect_within(dh, h64.grad(), h64.grad().abs() * store_unit(c.dtype) + dh_slack, "dh");
            // At most 32 rows a chunk in fp32.
            const auto expect_sum = [&](const at::Tensor& sum, const at::Tensor& expected,
                                        const at::Tensor& slack, const at::Tensor& before, const char* what) {
                expect_within(sum, expected,
                              expected.abs() * store_unit(sum.scalar_type()) + slack + unit * before.abs(),
                              what);
            };
            expect_sum(grads.w, dw_before + w64.grad(),
                       at::mm(above.t(), gelu_error(c, from) + 40 * unit * from.abs()), dw_before, "dw");
            expect_sum(grads.b, db_before + b64.grad(), 40 * unit * above.sum(0), db_before, "db");
            // A sum over outputs too, of sums over the hidden numbers.
            const at::Tensor terms =
                at::mm(
                    gelu_error(c, from) + static_cast<double>(c.hidden + c.outputs + 40) * unit * from.abs(),
                    weights.t()) +
                static_cast<double>(c.outputs + 40) * unit * wide(net.b).abs();
            expect_sum(grads.scale, dscale_before + scale64.grad(), (wide(dvalues).abs() * terms).sum(),
                       dscale_before, "dscale");
        });
    }
}

TEST(CoefNetOp, IsRepeatable) {
    const at::Tensor h = at::randn({700, 64}, at::kBFloat16), dvalues = at::randn({700, 14});
    const CoefNetWeights net{at::randn({14, 64}, at::kBFloat16), at::randn({14}, at::kBFloat16),
                             at::full({1}, net_scale)};
    expect_repeatable([&] {
        const at::Tensor values = at::empty({700, 14}), dh = at::empty_like(h);
        const CoefNetWeights grads{at::zeros_like(net.w), at::zeros_like(net.b), at::zeros_like(net.scale)};
        coef_net(h, net, values);
        coef_net_backward(dvalues, h, net, dh, grads);
        return std::vector<at::Tensor>{values, dh, grads.w, grads.b, grads.scale};
    });
}

}  // namespace
}  // namespace speedrun::ops
