#include "ops/head_loss.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "util/error.h"

namespace speedrun::ops {
namespace {

struct Head {
    at::Tensor x, w, targets;
    Softcap softcap{};
    double grad_scale = 1;
    std::vector<double> weights = {1};
    Targets::Tail tail = Targets::Tail::drop;
    at::Tensor prefix_of{};  // undefined: none has one
    double prefix_weight = 0;
    at::Tensor bias{};  // undefined: none

    Targets weighted() const {
        return {targets, at::tensor(weights, at::kFloat), tail, prefix_of,
                at::tensor({prefix_weight}, at::kFloat)};
    }
};

struct Result {
    at::Tensor loss, dx, dw;
    at::Tensor dx_terms, dw_terms;            // the sums of the magnitudes of the terms dx and dw are sums of
    at::Tensor dbias = {}, dbias_terms = {};  // where there is a bias
};

Head random_head(int64_t tokens, int64_t vocab, int64_t d, at::ScalarType dtype, double logits_std = 3) {
    const double w_std = logits_std / std::sqrt(static_cast<double>(d));
    return {at::randn({tokens, d}).to(dtype), (w_std * at::randn({vocab, d})).to(dtype),
            at::randint(vocab, {tokens}, at::kLong)};
}

bool is_rsqrt(const Softcap& cap) {
    return cap.form == Softcap::Form::rsqrt;
}

at::Tensor capped_by_formula(const at::Tensor& z, const Softcap& cap) {
    return is_rsqrt(cap) ? cap.a * z * (z.square() + cap.a * cap.a).rsqrt()
                         : cap.a * ((z + cap.b) / cap.c).sigmoid();
}

// The magnitude of its derivative, of the capped logits.
at::Tensor slope_of(const at::Tensor& y, const Softcap& cap) {
    return is_rsqrt(cap) ? (1 - (y / cap.a).square()).clamp_min(0).pow(1.5)
                         : (y * (cap.a - y) / (cap.a * cap.c)).abs();
}

// Autograd in fp64.
Result autograd(const Head& head) {
    const at::Tensor x = head.x.to(at::kDouble).clone().requires_grad_();
    const at::Tensor w = head.w.to(at::kDouble).clone().requires_grad_();
    at::Tensor bias = head.bias;
    if (bias.defined()) bias = bias.to(at::kDouble).clone().requires_grad_();
    const at::Tensor z = bias.defined() ? x.mm(w.t()) + bias : x.mm(w.t());
    const at::Tensor y = capped_by_formula(z, head.softcap);
    const int64_t rows = x.size(0);
    const at::Tensor log_p = y.log_softmax(1), log_sum = y.logsumexp(1);
    at::Tensor loss = at::zeros({rows}, at::kDouble), kept = at::zeros({rows}, at::kDouble),
               magnitude = at::zeros(y.sizes(), at::kDouble);
    for (size_t i = 0; i < head.weights.size(); ++i) {
        const auto k = static_cast<int64_t>(i), there = std::max<int64_t>(0, rows - k);
        const at::Tensor targets = head.targets.narrow(0, rows - there, there);
        const at::Tensor weight = at::arange(rows).lt(there) * head.weights[i];
        if (there > 0)
            loss = loss +
                   at::pad(-log_p.narrow(0, 0, there).gather(1, targets.unsqueeze(1)).squeeze(1), {0, k}) *
                       weight;
        if (head.tail == Targets::Tail::keep_normaliser) kept = kept + log_sum * (head.weights[i] - weight);
        magnitude += y.detach().softmax(1) * head.weights[i];
        magnitude.narrow(0, 0, there) += at::one_hot(targets, head.w.size(0)) * head.weights[i];
    }
    if (head.prefix_of.defined()) {
        const at::Tensor prefix = head.prefix_of.index({head.targets});
        const at::Tensor has_one = prefix.ge(0), row = at::arange(rows).index({has_one}),
                         token = prefix.index({has_one});
        loss = loss.index_add(0, row, -log_p.index({row, token}) * head.prefix_weight);
        magnitude.index_add_(0, row, y.detach().softmax(1).index({row}) * head.prefix_weight);
        magnitude.index_add_(0, row, at::one_hot(token, head.w.size(0)).to(at::kDouble) * head.prefix_weight);
    }
    ((loss + kept).sum() * head.grad_scale).backward();

    const at::Tensor dz = magnitude * slope_of(y.detach(), head.softcap) * std::abs(head.grad_scale);
    Result result{loss.detach(), x.grad(), w.grad(), dz.mm(w.detach().abs()), dz.t().mm(x.detach().abs())};
    if (bias.defined()) {
        result.dbias = bias.grad();
        result.dbias_terms = dz.sum(0);
    }
    return result;
}

Result ours(const Head& head, at::ScalarType dw_dtype, const at::Tensor& dw_before = {}) {
    Result r{at::full({head.x.size(0)}, NAN),
             at::full_like(head.x, NAN),
             at::zeros(head.w.sizes(), dw_dtype),
             {},
             {}};
    if (dw_before.defined()) r.dw.copy_(dw_before);
    if (head.bias.defined()) r.dbias = at::zeros(head.bias.sizes(), dw_dtype);
    head_loss_backward(head.x, {head.w, head.bias}, head.weighted(), head.softcap, head.grad_scale, r.loss,
                       r.dx, {r.dw, r.dbias});
    return r;
}

double largest(const at::Tensor& x) {
    return x.abs().max().item<double>();
}
// Largest error relative to the magnitude of the terms summed. Far below rms size (where fp32 underflows) it
// counts less.
double error(const at::Tensor& found, const at::Tensor& wanted, const at::Tensor& terms) {
    return largest((found.to(at::kDouble) - wanted) / (terms + 1e-6 * terms.square().mean().sqrt()));
}

// A capped logit has an error of a few units of fp32 rounding at A = 30 (2^-20 = 1e-6 = 1/2 unit), from the
// GEMM and from the cap; the softmax turns it into a relative one. 8 of these were never reached.
constexpr double fp32_tolerance = 8e-6;
// bf16 rounds the two factors of each term of dw (of dx, one) and, as an output, the sum.
constexpr double bf16_rounding = 0x1p-8;  // half a unit in the last place of 8 bits
constexpr double bf16_tolerance = 2.01 * bf16_rounding + fp32_tolerance;

void expect_equals_autograd(const Head& head, const std::string& what) {
    const Result wanted = autograd(head);
    const bool bf16 = head.x.scalar_type() == at::kBFloat16;
    const double tolerance = bf16 ? bf16_tolerance : fp32_tolerance;
    // With a prefix a loss is one cross-entropy more, and so are its errors: as many as the weights together.
    const double loss_tolerance =
        !head.prefix_of.defined()
            ? fp32_tolerance
            : fp32_tolerance * std::accumulate(head.weights.begin(), head.weights.end(), head.prefix_weight);
    for (const at::ScalarType dw_dtype : {at::kFloat, at::kBFloat16}) {
        const Result found = ours(head, dw_dtype);
        // The loss is computed in fp32 from exact inputs in both dtypes.
        EXPECT_LE(largest(found.loss - wanted.loss), loss_tolerance) << what;
        EXPECT_LE(error(found.dx, wanted.dx, wanted.dx_terms), tolerance) << what;
        EXPECT_LE(error(found.dw, wanted.dw, wanted.dw_terms),
                  tolerance + (dw_dtype == at::kBFloat16 ? bf16_rounding : 0))
            << what;
        if (wanted.dbias.defined()) {
            EXPECT_LE(error(found.dbias, wanted.dbias, wanted.dbias_terms),
                      tolerance + (dw_dtype == at::kBFloat16 ? bf16_rounding : 0))
                << what;
        }
        const at::Tensor loss = at::empty_like(found.loss);
        head_loss(head.x, {head.w, head.bias}, head.weighted(), head.softcap, loss);
        EXPECT_LE(largest(loss - wanted.loss), loss_tolerance) << what;
    }
}

TEST(HeadLoss, EqualsAutogradInDoubleForOddShapes) {
    at::manual_seed(1);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        for (const auto& [tokens, vocab, d] :
             std::vector<std::tuple<int64_t, int64_t, int64_t>>{{1, 2, 1},
                                                                {1, 129, 8},
                                                                {3, 1000, 17},
                                                                {17, 127, 64},
                                                                {256, 384, 32},
                                                                {257, 513, 128},
                                                                {700, 1029, 48}}) {
            expect_equals_autograd(
                random_head(tokens, vocab, d, dtype),
                std::to_string(tokens) + ' ' + std::to_string(vocab) + ' ' + std::to_string(d));
        }
    }
}

TEST(HeadLoss, EqualsAutogradForOtherSoftcapsAndGradScales) {
    at::manual_seed(2);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        for (const Softcap& softcap : {Softcap{23, 5, 7.5}, Softcap{15, -2, 3}, Softcap{30, 0, -7.5},
                                       Softcap{1, 0, 20}, Softcap{60, 1, 15}, Softcap{-8, 0, 4}}) {
            Head head = random_head(40, 300, 32, dtype);
            head.softcap = softcap;
            head.grad_scale = 0.125;
            expect_equals_autograd(head,
                                   "A " + std::to_string(softcap.a) + " B " + std::to_string(softcap.b));
        }
    }
}

TEST(HeadLoss, EqualsAutogradForTheRsqrtCapAndABias) {
    at::manual_seed(21);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
        for (const auto& [tokens, vocab, a] : {std::tuple{1, 5, 15.0}, {40, 300, 15.0}, {600, 129, 4.0}})
            for (const bool biased : {false, true}) {
                Head head = random_head(tokens, vocab, 32, dtype);
                head.softcap = {.a = a, .form = Softcap::Form::rsqrt};
                if (biased) head.bias = at::randn({vocab}).to(dtype);
                expect_equals_autograd(head, std::to_string(tokens) + " tokens");
            }
    Head sigmoid = random_head(300, 200, 32, at::kFloat);
    sigmoid.bias = at::randn({200});
    expect_equals_autograd(sigmoid, "sigmoid and a bias");
}

TEST(HeadLoss, FormsAgreeAboutTheRsqrtCapAndABias) {
    at::manual_seed(22);
    Head head = random_head(5000, 50, 16, at::kFloat);  // several chunks of the reference too
    head.softcap = {.a = 15, .form = Softcap::Form::rsqrt};
    head.bias = at::randn({50});
    const Result one = ours(head, at::kFloat), exact = autograd(head);
    Result two{at::empty({5000}), at::empty({5000, 16}), at::zeros({50, 16}), {}, {}, at::zeros({50}), {}};
    head_loss_backward_reference(head.x, {head.w, head.bias}, head.weighted(), head.softcap, 1, two.loss,
                                 two.dx, {two.dw, two.dbias});
    EXPECT_LE(largest(one.loss - two.loss), 2 * fp32_tolerance);
    EXPECT_LE(error(one.dx, two.dx.to(at::kDouble), exact.dx_terms), 2 * fp32_tolerance);
    EXPECT_LE(error(one.dw, two.dw.to(at::kDouble), exact.dw_terms), 2 * fp32_tolerance);
    EXPECT_LE(error(one.dbias, two.dbias.to(at::kDouble), exact.dbias_terms), 2 * fp32_tolerance);
}

// Some of a token's targets are one token; some rows are shorter than the list of weights; some lie at the
// end of a chunk.
TEST(HeadLoss, EqualsAutogradForSeveralWeightedTargets) {
    at::manual_seed(9);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
        for (const int64_t tokens : {1, 2, 257, 600})
            for (const auto tail : {Targets::Tail::drop, Targets::Tail::keep_normaliser})
                for (const auto& weights :
                     {std::vector{1.0, 0.5, 0.25}, {1.0, 0.0}, {0.5, 0.5, 0.25, 0.125}}) {
                    Head head = random_head(tokens, 40, 32, dtype);
                    head.targets.fmod_(5);
                    head.weights = weights;
                    head.tail = tail;
                    expect_equals_autograd(head, std::to_string(tokens) + " tokens");
                }
}

// Of 40 tokens the first five are targets: one without a prefix, some whose prefix is another target of the
// same row, two whose prefix is no target at all.
at::Tensor some_prefixes(int64_t vocab) {
    const at::Tensor prefix_of = at::full({vocab}, -1, at::kLong);
    prefix_of.narrow(0, 0, 5).copy_(at::tensor(std::vector<int64_t>{-1, 0, 1, 30, vocab - 1}, at::kLong));
    return prefix_of;
}

TEST(HeadLoss, EqualsAutogradForPrefixes) {
    at::manual_seed(19);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
        for (const int64_t tokens : {1, 2, 257, 600})
            for (const auto tail : {Targets::Tail::drop, Targets::Tail::keep_normaliser})
                for (const auto& weights : {std::vector{1.0}, {1.0, 0.5, 0.25}, {0.5, 0.5, 0.25, 0.125}})
                    for (const double prefix_weight : {0.25, 0.0}) {
                        Head head = random_head(tokens, 40, 32, dtype);
                        head.targets.fmod_(5);
                        head.weights = weights;
                        head.tail = tail;
                        head.prefix_of = some_prefixes(40);
                        head.prefix_weight = prefix_weight;
                        expect_equals_autograd(head, std::to_string(tokens) + " tokens");
                    }
}

TEST(HeadLoss, IsUnchangedByPrefixesThatNoTargetHas) {
    at::manual_seed(20);
    Head head = random_head(300, 40, 32, at::kFloat);
    head.tail = Targets::Tail::keep_normaliser;
    head.weights = {1, 0.5};
    const Result without = ours(head, at::kFloat);
    head.prefix_of = at::full({40}, -1, at::kLong);
    head.prefix_weight = 0.25;
    const Result with = ours(head, at::kFloat);
    EXPECT_TRUE(with.loss.equal(without.loss) && with.dx.equal(without.dx) && with.dw.equal(without.dw));
}

TEST(HeadLoss, RefusesPrefixesOutsideTheVocabularyAndOfOtherShapes) {
    Head head = random_head(5, 30, 8, at::kFloat);
    head.targets.fill_(3);
    const auto refuses = [&](const at::Tensor& prefix_of) {
        head.prefix_of = prefix_of;
        EXPECT_THROW(ours(head, at::kFloat), InternalError);
    };
    refuses(at::full({30}, 30, at::kLong));
    refuses(at::full({30}, -2, at::kLong));
    refuses(at::zeros({29}, at::kLong));
    refuses(at::zeros({30}, at::kInt));
}

TEST(HeadLoss, FormsAgreeAboutSeveralTargets) {
    for (const auto tail : {Targets::Tail::drop, Targets::Tail::keep_normaliser}) {
        Head head = random_head(5000, 50, 16, at::kFloat);  // several chunks of the reference too
        head.targets.fmod_(5);
        head.weights = {1, 0.5, 0.25};
        head.tail = tail;
        head.prefix_of = some_prefixes(50);
        head.prefix_weight = 0.25;
        const Result one = ours(head, at::kFloat), exact = autograd(head);
        Result two{at::empty({5000}), at::empty({5000, 16}), at::zeros({50, 16}), {}, {}};
        head_loss_backward_reference(head.x, head.w, head.weighted(), head.softcap, 1, two.loss, two.dx,
                                     two.dw);
        EXPECT_LE(largest(one.loss - two.loss), 2 * fp32_tolerance);
        EXPECT_LE(error(one.dx, two.dx.to(at::kDouble), exact.dx_terms), 2 * fp32_tolerance);
        EXPECT_LE(error(one.dw, two.dw.to(at::kDouble), exact.dw_terms), 2 * fp32_tolerance);
    }
}

TEST(HeadLoss, ServesSoftcapsBeyondTheRangeOfFp32) {
    Head head = random_head(20, 50, 16, at::kFloat);
    head.softcap = {1000, 0, 300};
    const Result wanted = autograd(head), found = ours(head, at::kFloat);
    // logits near 500 are rounded to 3e-5
    EXPECT_LE(largest(found.loss - wanted.loss), 2e-4);
    EXPECT_LE(error(found.dx, wanted.dx, wanted.dx_terms), 2e-4);
    EXPECT_LE(error(found.dw, wanted.dw, wanted.dw_terms), 2e-4);
}

TEST(HeadLoss, AddsToDwAndRoundsItOnce) {
    at::manual_seed(3);
    const Head head = random_head(1500, 200, 16, at::kFloat);  // several chunks of tokens
    const at::Tensor before = at::randn({200, 16}) * 10;
    const Result gradient = autograd(head);
    const at::Tensor terms = gradient.dw_terms + before.abs();
    EXPECT_LE(error(ours(head, at::kFloat, before).dw, gradient.dw + before, terms), fp32_tolerance);

    // bf16: within half a unit plus what fp32 loses; six roundings would not be
    const at::Tensor start = before.to(at::kBFloat16);
    const at::Tensor found = ours(head, at::kBFloat16, start).dw.to(at::kDouble), exact = gradient.dw + start;
    const at::Tensor excess = (found - exact).abs() - exact.abs() * bf16_rounding - terms * fp32_tolerance;
    EXPECT_LE(excess.max().item<double>(), 0);
}

TEST(HeadLoss, SoftmaxRunsOverPaddingRowsAndTargetsMayLieThere) {
    Head head = random_head(30, 256, 32, at::kFloat);
    head.w.slice(0, 200).zero_();
    head.targets.slice(0, 0, 10).fill_(255);
    head.targets.slice(0, 10, 20).fill_(200);
    expect_equals_autograd(head, "padding");
}

TEST(HeadLoss, ConfidentTokensKeepSmallGradients) {
    // 1 - p is near 0.005 at the target: rounding p itself to bf16 would lose 40 % of the gradient.
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        Head head = random_head(16, 100, 16, dtype, 0.01);
        head.x.slice(1, 0, 1).fill_(1);
        head.targets.fill_(7);
        head.w[7][0] = 12;
        const Result wanted = autograd(head), found = ours(head, at::kFloat);
        EXPECT_LT(largest(wanted.loss), 0.01);
        // relative to the small gradient itself: in fp32, 1 - p costs two to three digits
        const double tolerance = 2e-3 + (dtype == at::kBFloat16 ? bf16_tolerance : 0);
        const auto relative = [](const at::Tensor& a, const at::Tensor& b) { return error(a, b, b.abs()); };
        EXPECT_LE(relative(found.dw[7].slice(0, 0, 1), wanted.dw[7].slice(0, 0, 1)), tolerance);
        EXPECT_LE(relative(found.dx.slice(1, 0, 1), wanted.dx.slice(1, 0, 1)), tolerance);
    }
}

TEST(HeadLoss, ExtremeLogitsStayFinite) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        for (const double scale : {1e3, 1e18}) {
            Head head = random_head(33, 300, 16, dtype);
            head.w.mul_(scale);
            const Result found = ours(head, at::kFloat), wanted = autograd(head);
            for (const at::Tensor& tensor : {found.loss, found.dx, found.dw}) {
                EXPECT_TRUE(tensor.isfinite().all().item<bool>());
            }
            // At 1e18 nearly all logits are at either end of the cap, where its slope vanishes.
            EXPECT_LE(largest(found.loss - wanted.loss), scale > 1e6 ? fp32_tolerance : 1e-2);
        }
    }
}

TEST(HeadLoss, CarriesNan) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const Head head = random_head(20, 300, 16, dtype);
        head.x[3][5] = NAN;
        const at::Tensor loss = ours(head, at::kFloat).loss;
        EXPECT_TRUE(loss[3].isnan().item<bool>());
        EXPECT_EQ(loss.isnan().sum().item<int64_t>(), 1);
    }
}

TEST(HeadLoss, RepeatsBitForBit) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const Head head = random_head(600, 1500, 64, dtype);
        const Result first = ours(head, dtype);
        for (int i = 0; i < 4; ++i) {
            const Result again = ours(head, dtype);
            ASSERT_TRUE(first.loss.equal(again.loss) && first.dx.equal(again.dx) && first.dw.equal(again.dw));
        }
    }
}

TEST(HeadLoss, FormsAgree) {
    const Head head = random_head(300, 700, 32, at::kFloat);
    const Result one = ours(head, at::kFloat);
    Result two{at::empty({300}), at::empty({300, 32}), at::zeros({700, 32}), {}, {}};
    head_loss_backward_reference(head.x, head.w, head.weighted(), head.softcap, 1, two.loss, two.dx, two.dw);
    EXPECT_LE(largest(one.loss - two.loss), 2 * fp32_tolerance);
    const Result exact = autograd(head);
    EXPECT_LE(error(one.dx, two.dx.to(at::kDouble), exact.dx_terms), 2 * fp32_tolerance);
    EXPECT_LE(error(one.dw, two.dw.to(at::kDouble), exact.dw_terms), 2 * fp32_tolerance);
    const at::Tensor forward = at::empty({300});
    head_loss_reference(head.x, head.w, head.weighted(), head.softcap, forward);
    EXPECT_TRUE(forward.equal(two.loss));
}

TEST(HeadLoss, MixedDtypesAreComputedInFp32) {
    Head head = random_head(50, 200, 16, at::kFloat);
    head.w = head.w.to(at::kBFloat16);
    const Result wanted = autograd(head), found = ours(head, at::kFloat);
    EXPECT_LE(error(found.dx, wanted.dx, wanted.dx_terms), fp32_tolerance);
    EXPECT_LE(error(found.dw, wanted.dw, wanted.dw_terms), fp32_tolerance);
}

TEST(HeadLoss, RefusesTargetsOutsideTheVocabularyAndWrongShapes) {
    Head head = random_head(5, 30, 8, at::kFloat);
    head.targets[2] = 30;
    EXPECT_THROW(ours(head, at::kFloat), InternalError);
    head.targets[2] = -100;
    EXPECT_THROW(ours(head, at::kFloat), InternalError);
    head.targets = at::zeros({6}, at::kLong);
    EXPECT_THROW(ours(head, at::kFloat), InternalError);
    head.targets = at::zeros({5}, at::kInt);
    EXPECT_THROW(ours(head, at::kFloat), InternalError);
    head.targets = at::zeros({5}, at::kLong);
    head.bias = at::zeros({29});
    EXPECT_THROW(ours(head, at::kFloat), InternalError);
}

}  // namespace
}  // namespace speedrun::ops
