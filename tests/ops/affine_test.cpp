#include "ops/affine.h"

#include "row_op_testing.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using namespace testing;

// A sum of T numbers in fp32 is off by at most T roundings of the sum of their magnitudes; each product is
// rounded once.
double sum_unit(const Setting& s) {
    return s.arithmetic() * static_cast<double>(s.tokens + 2);
}

TEST(Affine, GainMultipliesEachChannelAndHasItsGradients) {
    for_each_setting(row_shapes, [](const Setting& s) {
        const Buffer x = s.buffer(), y = s.buffer(), dy = s.buffer(), dx = s.buffer();
        const at::Tensor gain = at::randn({s.d}, s.dtype), dgain = at::randn({s.d}, s.saved()),
                         before = wide(dgain);
        const at::Tensor expected = wide(x.view) * wide(gain);
        multiply_gain(x.view, gain, y.view);
        expect_within(y.view, expected, expected.abs() * (s.store() + s.arithmetic()), "y");

        multiply_gain_backward(dy.view, x.view, gain, dx.view, /*accumulate=*/false, dgain);
        const at::Tensor wanted_dx = wide(dy.view) * wide(gain), terms = wide(dy.view) * wide(x.view);
        expect_within(dx.view, wanted_dx, wanted_dx.abs() * (s.store() + s.arithmetic()), "dx");
        expect_within(dgain, before + terms.sum(0), (terms.abs().sum(0) + before.abs()) * sum_unit(s),
                      "dgain");
        EXPECT_TRUE(y.rest_untouched() && dx.rest_untouched());

        const at::Tensor first = wide(dx.view);
        multiply_gain_backward(dy.view, x.view, gain, dx.view, /*accumulate=*/true, dgain);
        const at::Tensor twice = first + wanted_dx;
        expect_within(dx.view, twice, (first.abs() + wanted_dx.abs()) * (s.store() + 2 * s.arithmetic()),
                      "dx added to");
    });
}

TEST(Affine, BiasIsAddedToEachRowAndHasTheSumOfGradients) {
    for_each_setting(row_shapes, [](const Setting& s) {
        const Buffer y = s.buffer(), dy = s.buffer();
        const at::Tensor bias = at::randn({s.d}, s.dtype), dbias = at::randn({s.d}, s.saved()),
                         before = wide(dbias), expected = wide(y.view) + wide(bias);
        add_bias(y.view, bias);
        expect_within(y.view, expected, expected.abs() * (s.store() + s.arithmetic()), "y");
        EXPECT_TRUE(y.rest_untouched());
        add_bias_backward(dy.view, dbias);
        expect_within(dbias, before + wide(dy.view).sum(0),
                      (wide(dy.view).abs().sum(0) + before.abs()) * sum_unit(s), "dbias");
    });
}

TEST(Affine, RefusesChannelsOfAnotherNumber) {
    const at::Tensor x = at::randn({3, 4}), five = at::randn({5});
    EXPECT_THROW(multiply_gain(x, five, x), InternalError);
    EXPECT_THROW(multiply_gain_backward(x, x, five, x, false, five), InternalError);
    EXPECT_THROW(add_bias(x, five), InternalError);
    EXPECT_THROW(add_bias_backward(x, five), InternalError);
}

}  // namespace
}  // namespace speedrun::ops
