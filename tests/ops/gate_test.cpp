#include "ops/gate.h"

#include <array>

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr int64_t outputs = 3, n_first = 7, n_second = 5;
constexpr std::array activations{Activation::identity, Activation::sigmoid, Activation::tanh};
const std::vector<std::pair<int64_t, int64_t>> gate_shapes = {{1, 12}, {7, 36}, {33, 131}, {2100, 12}};

at::ScalarType weight_type(const Setting& s, bool narrow) {
    return narrow ? at::kBFloat16 : s.saved();
}

at::Tensor activated(const at::Tensor& x, Activation activation) {
    if (activation == Activation::sigmoid) return at::sigmoid(x);
    return activation == Activation::tanh ? at::tanh(x) : x;
}

// The first channels of one tensor, or of two.
struct GateInputs {
    GateInputs(const Setting& s, bool both) {
        for (const int64_t width : both ? std::vector{n_first, n_second} : std::vector{n_first}) {
            buffers.push_back(s.buffer());
            parts.push_back(buffers.back().view.narrow(1, 0, width));
        }
    }
    int64_t width() const { return at::cat(parts, 1).size(1); }

    std::vector<Buffer> buffers;
    std::vector<at::Tensor> parts;
};

// A sum's error is as many roundings as it has terms, and one more; the activations' slope is at most 1,
// their own arithmetic (exp, sum, quotient) good to 4 units.
at::Tensor gate_error(const Setting& s, const GateInputs& in, const at::Tensor& w) {
    const at::Tensor magnitudes = at::mm(wide(at::cat(in.parts, 1)).abs(), wide(w).abs().t());
    return s.arithmetic() * (static_cast<double>(in.width() + 1) * magnitudes + 4);
}

template <class Body>
void for_each_case(const Body& body) {
    for (const Activation activation : activations)
        for (const bool both : {false, true})
            for (const bool narrow : {false, true})
                for_each_setting(gate_shapes, [&](const Setting& s) {
                    const GateInputs in(s, both);
                    body(s, in, at::randn({outputs, in.width()}, weight_type(s, narrow)), activation);
                });
}

TEST(Gate, IsTheFormula) {
    for (const auto& op : implementations<&gate, &reference::gate, &cuda::gate>()) {
        SCOPED_TRACE(op.name);
        for_each_case(
            [&](const Setting& s, const GateInputs& in, const at::Tensor& w, Activation activation) {
                const at::Tensor values = s.saved_rows({s.tokens, outputs});
                op(in.parts, w, activation, values);
                const at::Tensor sums = at::mm(wide(at::cat(in.parts, 1)), wide(w).t());
                expect_within(values, activated(sums, activation), gate_error(s, in, w), "values");
            });
    }
}

TEST(Gate, BackwardIsTheGradient) {
    for (const auto& op :
         implementations<&gate_backward, &reference::gate_backward, &cuda::gate_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_case([&](const Setting& s, const GateInputs& in, const at::Tensor& w,
                          Activation activation) {
            const at::Tensor values = s.saved_rows({s.tokens, outputs});
            gate(in.parts, w, activation, values);
            const at::Tensor dvalues = at::randn({s.tokens, outputs}, s.saved());
            const at::Tensor dw = at::randn(w.sizes(), w.options()), dw_before = wide(dw);
            const GateInputs dinputs(s, in.parts.size() == 2);
            const at::Tensor before = wide(at::cat(dinputs.parts, 1));
            const at::Tensor u64 = leaf(at::cat(in.parts, 1)), w64 = leaf(w);
            activated(at::mm(u64, w64.t()), activation).backward(wide(dvalues));

            op(dvalues, values, in.parts, w, activation, dinputs.parts, dw);
            for (const Buffer& buffer : dinputs.buffers)
                EXPECT_TRUE(
                    at::equal(buffer.view.narrow(1, n_first, s.d - n_first),
                              buffer.before.narrow(1, buffer.view.storage_offset() + n_first, s.d - n_first)))
                    << "channels that no gate reads";
            // The derivative of an activation from its value is off by twice the value's error.
            const at::Tensor error = wide(dvalues).abs() * (2 * gate_error(s, in, w) + 4 * s.arithmetic());
            const at::Tensor expected = before + u64.grad();
            const at::Tensor slack =
                at::mm(error, wide(w).abs()) +
                (outputs + 2) * s.arithmetic() * (at::mm(wide(dvalues).abs(), wide(w).abs()) + before.abs());
            expect_within(at::cat(dinputs.parts, 1), expected, expected.abs() * s.store() + slack, "dinputs");

            const at::Tensor expected_dw = dw_before + w64.grad(), au = wide(at::cat(in.parts, 1)).abs();
            // At most 32 rows a chunk in fp32.
            const at::Tensor dw_slack = at::mm((error + 40 * s.arithmetic() * wide(dvalues).abs()).t(), au) +
                                        s.arithmetic() * dw_before.abs();
            expect_within(dw, expected_dw, expected_dw.abs() * store_unit(dw.scalar_type()) + 2 * dw_slack,
                          "dw");
        });
    }
}

TEST(Gate, SaturatesWithoutNan) {
    const at::Tensor x = at::tensor({200.0F, -200.0F}).view({2, 1}), values = at::empty({2, 1});
    const std::array<at::Tensor, 1> inputs{x};
    gate(inputs, at::ones({1, 1}), Activation::sigmoid, values);
    EXPECT_TRUE(at::equal(values, at::tensor({1.0F, 0.0F}).view({2, 1})));
    gate(inputs, at::ones({1, 1}), Activation::tanh, values);
    EXPECT_TRUE(at::equal(values, at::tensor({1.0F, -1.0F}).view({2, 1})));
}

TEST(Gate, IsRepeatable) {
    const Buffer x(700, 24, at::kBFloat16, true);
    const std::array<at::Tensor, 1> inputs{x.view};
    const at::Tensor w = at::randn({outputs, 24}), dvalues = at::randn({700, outputs});
    expect_repeatable([&] {
        const at::Tensor values = at::empty({700, outputs}), dx = at::zeros({700, 24}, at::kBFloat16),
                         dw = at::zeros_like(w);
        gate(inputs, w, Activation::sigmoid, values);
        gate_backward(dvalues, values, inputs, w, Activation::sigmoid, std::array<at::Tensor, 1>{dx}, dw);
        return std::vector<at::Tensor>{values, dx, dw};
    });
}

}  // namespace
}  // namespace speedrun::ops
