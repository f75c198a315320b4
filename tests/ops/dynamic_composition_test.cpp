#include "ops/dynamic_composition.h"

#include "implementations.h"
#include "row_op_testing.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using namespace testing;

struct ComposedShape {
    const char* name;
    int64_t tokens, heads, head_dim, window;
    std::vector<int32_t> cu_seqlens;
    bool small = true;  // so that every dtype, and the emulation, are quick
};

// Blocks of the CPU path are 64 tokens and its tasks 16 blocks or more; the GPU's are 16 queries and 32 keys.
const std::vector<ComposedShape> composed_shapes = {
    {"one token", 1, 2, 8, 112, {0, 1}},
    {"a token sees itself alone", 20, 3, 6, 1, {0, 20}},
    {"a window shorter than the documents", 150, 3, 8, 17, {0, 70, 150}},
    {"a window longer than the documents", 131, 2, 10, 112, {0, 0, 5, 64, 66, 131, 131}},
    {"a window longer than a block", 200, 6, 4, 112, {0, 195, 200}},
    {"one head", 40, 1, 12, 9, {0, 40}},
    {"wide heads", 50, 2, 144, 33, {0, 13, 50}},
    {"two tasks", 1300, 2, 4, 70, {0, 900, 1010, 1300}, false},
};

struct ComposedCase {
    ComposedCase(const ComposedShape& s, at::ScalarType type, bool strided)
        : shape(s),
          dtype(type),
          accumulate(strided),
          q(buffer(strided)),
          k(buffer(strided)),
          v(buffer(strided)),
          y(buffer(strided)),
          coefficients(at::randn({s.tokens, 3 * s.heads}, saved_type(type))) {
        in = {heads(q.view),
              heads(k.view),
              heads(v.view),
              coefficients.narrow(1, 1, s.heads),
              coefficients.narrow(1, s.heads + 1, s.heads),
              at::tensor(s.cu_seqlens, at::kInt),
              s.window,
              0.5};
    }
    Buffer buffer(bool strided) const { return {shape.tokens, shape.heads * shape.head_dim, dtype, strided}; }
    at::Tensor heads(const at::Tensor& x) const { return x.unflatten(1, {shape.heads, shape.head_dim}); }

    const ComposedShape& shape;
    at::ScalarType dtype;
    bool accumulate;  // in backward
    Buffer q, k, v, y;
    at::Tensor coefficients;
    Composition in;
};

template <class Body>
void for_each_composition(const Body& body) {
    at::manual_seed(1);
    for (const ComposedShape& shape : composed_shapes)
        for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble})
            for (const bool strided : {false, true}) {
                if (!shape.small && (dtype != at::kFloat || strided)) continue;
                SCOPED_TRACE(std::string(shape.name) + " " + at::toString(dtype) +
                             (strided ? " strided" : ""));
                body(ComposedCase(shape, dtype, strided));
            }
}

// Document after document, in fp64.
at::Tensor composition_formula(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& w1, const at::Tensor& w2, const ComposedShape& shape,
                               double scale) {
    std::vector<at::Tensor> documents;
    for (size_t i = 0; i + 1 < shape.cu_seqlens.size(); ++i) {
        const int64_t start = shape.cu_seqlens[i], n = shape.cu_seqlens[i + 1] - start;
        if (n == 0) continue;
        const auto part = [&](const at::Tensor& x) { return x.narrow(0, start, n); };
        const at::Tensor band = at::ones({n, n}, at::kBool).tril().triu(1 - shape.window);
        const at::Tensor scores = at::einsum("thd,shd->hts", {part(q), part(k)}) * scale;
        const at::Tensor p = scores.masked_fill(band.logical_not(), -INFINITY).softmax(-1);
        const at::Tensor u = part(w1) / (part(w1).square().mean(-1, true) + 1e-6).sqrt();
        const at::Tensor map = at::einsum("th,hts->ts", {u, p});
        documents.push_back(part(w2).unsqueeze(2) * at::einsum("ts,shd->thd", {map, part(v)}));
    }
    return at::cat(documents);
}

// Sums of magnitudes of what the results are sums of, to which rounding errors are relative, and how many
// roundings: of scores 4 times D a product of magnitude `largest`, of sums over the keys 4 times, of sums
// over channels and heads, and of functions.
struct ComposedMagnitudes {
    ComposedMagnitudes(const ComposedCase& c, const at::Tensor& g) {
        const ComposedShape& s = c.shape;
        const auto by_head = [](const at::Tensor& x) { return wide(x).transpose(0, 1); };
        const at::Tensor q = by_head(c.in.q), k = by_head(c.in.k), v = by_head(c.in.v).abs();
        const at::Tensor at = at::arange(s.tokens);
        at::Tensor seen = (at.unsqueeze(1) >= at) & (at.unsqueeze(1) - at < s.window);
        for (const int32_t start : s.cu_seqlens) seen &= (at.unsqueeze(1) >= start).eq(at >= start);
        const at::Tensor p = (at::matmul(q, k.transpose(1, 2)) * c.in.scale)
                                 .masked_fill(seen.logical_not(), -INFINITY)
                                 .softmax(-1);
        const at::Tensor w1 = wide(c.in.w1), rstd = (w1.square().mean(-1, true) + composition_eps).rsqrt();
        const at::Tensor u = (w1 * rstd).abs().t().unsqueeze(2), w2 = wide(c.in.w2).abs().t().unsqueeze(2),
                         above = by_head(g).abs();
        const at::Tensor map = (u * p).sum(0), products = at::matmul(above, v.transpose(1, 2)),
                         dmap = (w2 * products).sum(0), du = (dmap * p).sum(-1, true),
                         dscores = u * p * (dmap + du) * c.in.scale;
        out = (w2 * at::matmul(map, v)).transpose(0, 1);
        dq = at::matmul(dscores, k.abs()).transpose(0, 1);
        dk = at::matmul(dscores.transpose(1, 2), q.abs()).transpose(0, 1);
        dv = at::matmul(map.t(), w2 * above).transpose(0, 1);
        dw2 = (map * products).sum(-1).t();
        dw1 = rstd * (du + u * (u * du).mean(0, true)).squeeze(2).t();
        const double largest =
            (at::matmul(q.abs(), k.abs().transpose(1, 2)) * c.in.scale).max().item<double>();
        const auto d = static_cast<double>(s.head_dim), n = static_cast<double>(std::min(s.window, s.tokens));
        error = (4 * (d + 4) * largest + 4 * n + d + 3 * static_cast<double>(s.heads) + 60) *
                arithmetic_unit(c.dtype);
    }
    at::Tensor out, dq, dk, dv, dw1, dw2;
    double error = 0;
};

TEST(DynamicComposition, IsTheFormula) {
    for_each_composition([&](const ComposedCase& c) {
        const at::Tensor expected =
            wide(c.heads(c.y.view)) + composition_formula(wide(c.in.q), wide(c.in.k), wide(c.in.v),
                                                          wide(c.in.w1), wide(c.in.w2), c.shape, c.in.scale);
        const ComposedMagnitudes most(c, c.in.q);
        const at::Tensor bound = expected.abs() * store_unit(c.dtype) + most.error * most.out +
                                 arithmetic_unit(c.dtype) * wide(c.heads(c.y.view)).abs();
        for (const auto& op : implementations<&dynamic_composition, &reference::dynamic_composition,
                                              &cuda::dynamic_composition>()) {
            SCOPED_TRACE(op.name);
            const Buffer out = c.buffer(true);
            op(c.in, c.heads(c.y.view), c.heads(out.view));
            expect_within(c.heads(out.view), expected, bound, "out");
            EXPECT_TRUE(out.rest_untouched());
        }
    });
}

TEST(DynamicComposition, BackwardIsTheGradient) {
    for_each_composition([&](const ComposedCase& c) {
        const at::Tensor q = leaf(c.in.q), k = leaf(c.in.k), v = leaf(c.in.v), w1 = leaf(c.in.w1),
                         w2 = leaf(c.in.w2), dout = c.heads(c.y.view);
        composition_formula(q, k, v, w1, w2, c.shape, c.in.scale).backward(wide(dout));
        const ComposedMagnitudes most(c, dout);
        for (const auto& op :
             implementations<&dynamic_composition_backward, &reference::dynamic_composition_backward,
                             &cuda::dynamic_composition_backward>()) {
            SCOPED_TRACE(op.name);
            const Buffer dq = c.buffer(true), dk = c.buffer(true), dv = c.buffer(true);
            const at::Tensor dw = at::randn_like(c.coefficients), before = dw.clone();
            const int64_t heads = c.shape.heads;
            const at::Tensor dw1 = dw.narrow(1, 0, heads), dw2 = dw.narrow(1, 2 * heads, heads);
            op(c.in, dout, {c.heads(dq.view), c.heads(dk.view), c.heads(dv.view), c.accumulate, dw1, dw2});

            const auto expect = [&](const at::Tensor& actual, const at::Tensor& start,
                                    const at::Tensor& gradient, const at::Tensor& magnitude, double unit,
                                    const char* what) {
                const at::Tensor expected = wide(start) + gradient;
                expect_within(actual, expected,
                              expected.abs() * unit + most.error * (magnitude + wide(start).abs()), what);
            };
            const at::Tensor none = at::zeros_like(q.detach());
            const double store = store_unit(c.dtype), fp32 = arithmetic_unit(c.dtype);
            expect(c.heads(dq.view), none, q.grad(), most.dq, store, "dq");
            expect(c.heads(dk.view), none, k.grad(), most.dk, store, "dk");
            const at::Tensor values =
                c.accumulate ? c.heads(dv.before.narrow(1, dv.view.storage_offset(), dv.view.size(1))) : none;
            expect(c.heads(dv.view), values, v.grad(), most.dv, store, "dv");
            expect(dw1, before.narrow(1, 0, heads), w1.grad(), most.dw1, fp32, "dw1");
            expect(dw2, before.narrow(1, 2 * heads, heads), w2.grad(), most.dw2, fp32, "dw2");
            EXPECT_TRUE(dq.rest_untouched() && dk.rest_untouched() && dv.rest_untouched());
            EXPECT_TRUE(at::equal(dw.narrow(1, heads, heads), before.narrow(1, heads, heads)));
        }
    });
}

// What other documents hold does not matter.
TEST(DynamicComposition, SeesNothingElse) {
    const ComposedShape shape{"", 300, 2, 8, 20, {0, 130, 300}};
    at::manual_seed(2);
    const ComposedCase c(shape, at::kFloat, false);
    const auto compose = [&] {
        const at::Tensor out = at::empty_like(c.in.q), dq = at::empty_like(out), dk = at::empty_like(out),
                         dv = at::empty_like(out), dw1 = at::zeros({300, 2}), dw2 = at::zeros({300, 2});
        dynamic_composition(c.in, c.heads(c.y.view), out);
        dynamic_composition_backward(c.in, c.heads(c.y.view), {dq, dk, dv, false, dw1, dw2});
        return at::cat({out.flatten(1), dq.flatten(1), dw1, dw2}, 1);
    };
    const at::Tensor before = compose();
    c.in.k.narrow(0, 0, 130).fill_(3);
    c.in.v.narrow(0, 0, 130).fill_(-2);
    c.in.k.narrow(0, 250, 50).fill_(3);
    const at::Tensor after = compose();
    EXPECT_TRUE(at::equal(before.narrow(0, 130, 120), after.narrow(0, 130, 120)));
    EXPECT_FALSE(at::equal(before.narrow(0, 250, 50), after.narrow(0, 250, 50)));
}

TEST(DynamicComposition, IsRepeatable) {
    const ComposedShape shape{"", 2500, 3, 16, 112, {0, 400, 1800, 2500}};
    const ComposedCase c(shape, at::kBFloat16, true);
    expect_repeatable([&] {
        const at::Tensor out = at::empty({2500, 3, 16}, at::kBFloat16), dq = at::empty_like(out),
                         dk = at::empty_like(out), dv = at::empty_like(out), dw1 = at::zeros({2500, 3}),
                         dw2 = at::zeros({2500, 3});
        dynamic_composition(c.in, c.heads(c.y.view), out);
        dynamic_composition_backward(c.in, c.heads(c.y.view), {dq, dk, dv, false, dw1, dw2});
        return std::vector<at::Tensor>{out, dq, dk, dv, dw1, dw2};
    });
}

TEST(DynamicComposition, WhatDoesNotFitIsRefused) {
    const ComposedShape shape{"", 10, 2, 4, 3, {0, 10}};
    const ComposedCase c(shape, at::kFloat, false);
    const at::Tensor out = at::empty_like(c.in.q);
    const auto refused = [&](const auto& change) {
        Composition in = c.in;
        change(in);
        EXPECT_THROW(dynamic_composition(in, c.heads(c.y.view), out), InternalError);
    };
    refused([](Composition& in) { in.window = 0; });
    refused([](Composition& in) { in.k = in.k.to(at::kBFloat16); });
    refused([](Composition& in) { in.v = in.v.narrow(0, 0, 9); });
    refused([](Composition& in) { in.w1 = in.w1.narrow(1, 0, 1); });
    refused([](Composition& in) { in.w2 = in.w2.to(at::kBFloat16); });
    refused([](Composition& in) { in.cu_seqlens = in.cu_seqlens.to(at::kLong); });
}

}  // namespace
}  // namespace speedrun::ops
