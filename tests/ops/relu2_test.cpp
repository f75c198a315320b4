#include "ops/relu2.h"

#include <limits>

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

TEST(Relu2, IsTheFormula) {
    for (const auto& op : implementations<&relu2, &reference::relu2, &cuda::relu2>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(row_shapes, [&](const Setting& s) {
            const Buffer x = s.buffer(), y = s.buffer();
            op(x.view, y.view);
            const at::Tensor expected = wide(x.view).relu().square();
            expect_within(y.view, expected, expected * (s.store() + 2 * s.arithmetic()), "y");
            EXPECT_TRUE(y.rest_untouched());
        });
    }
}

TEST(Relu2, BackwardIsTheGradient) {
    for (const auto& op :
         implementations<&relu2_backward, &reference::relu2_backward, &cuda::relu2_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(row_shapes, [&](const Setting& s) {
            const Buffer x = s.buffer(), dy = s.buffer(), dx = s.buffer();
            const at::Tensor in = leaf(x.view);
            in.relu().square().backward(wide(dy.view));
            op(dy.view, x.view, dx.view);
            expect_within(dx.view, in.grad(), in.grad().abs() * (s.store() + 2 * s.arithmetic()), "dx");
            EXPECT_TRUE(dx.rest_untouched());
        });
    }
}

// Of y = x^2 for x > 0, rounded; a root and two products follow.
TEST(Relu2, BackwardOfTheOutputIsTheGradient) {
    for (const auto& op : implementations<&relu2_backward_of_output, &reference::relu2_backward_of_output,
                                          &cuda::relu2_backward_of_output>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(row_shapes, [&](const Setting& s) {
            const Buffer x = s.buffer(), dy = s.buffer(), dx = s.buffer();
            const at::Tensor y = at::empty_like(x.view);
            relu2(x.view, y);
            op(dy.view, y, dx.view);
            const at::Tensor expected = 2 * wide(y).sqrt() * wide(dy.view);
            expect_within(dx.view, expected, expected.abs() * (s.store() + 3 * s.arithmetic()), "dx");
            EXPECT_TRUE(dx.rest_untouched());
        });
    }
}

// In fp32 the root of the square is the number again, so that both ways have the same bits.
TEST(Relu2, BackwardOfTheOutputHasTheBitsInFp32) {
    at::manual_seed(2);
    const at::Tensor x = at::randn({64, 1000}), dy = at::randn_like(x), y = at::empty_like(x),
                     of_input = at::empty_like(x), of_output = at::empty_like(x);
    relu2(x, y);
    relu2_backward(dy, x, of_input);
    relu2_backward_of_output(dy, y, of_output);
    EXPECT_TRUE(at::equal(of_output, of_input));
}

TEST(Relu2, MayWorkInPlace) {
    for_each_setting(row_shapes, [&](const Setting& s) {
        const Buffer x = s.buffer(), dy = s.buffer(), y = s.buffer(), dx = s.buffer();
        relu2(x.view, y.view);
        relu2_backward(dy.view, x.view, dx.view);
        relu2_backward(dy.view, x.view, dy.view);
        EXPECT_TRUE(at::equal(dy.view, dx.view));
        relu2(x.view, x.view);
        EXPECT_TRUE(at::equal(x.view, y.view));
    });
}

TEST(Relu2, KeepsNan) {
    const at::Tensor x = at::full({1, 9}, std::numeric_limits<float>::quiet_NaN()), y = at::zeros_like(x);
    relu2(x, y);
    EXPECT_TRUE(y.isnan().all().item<bool>());
}

}  // namespace
}  // namespace speedrun::ops
