#include "ops/attention/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "ops/attention/cudnn_attention.h"
#include "ops/implementations.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

struct Case {
    std::string name;
    int64_t T, H, D, window;
    std::vector<int32_t> cu_seqlens;
};

std::vector<int32_t> one_token_documents(int32_t T) {
    std::vector<int32_t> cu(static_cast<size_t>(T) + 1);
    for (int32_t i = 0; i <= T; ++i) cu[static_cast<size_t>(i)] = i;
    return cu;
}

// Blocks of the CPU path are 64 tokens: the cases sit on, just before and just after multiples of it.
const std::vector<Case> kCases = {
    {"one token", 1, 1, 16, 8, {0, 1}},
    {"less than a block", 37, 2, 64, 8, {0, 37}},
    {"one block", 64, 2, 64, 64, {0, 64}},
    {"a block and a token", 65, 2, 64, 64, {0, 65}},
    {"window 0", 200, 2, 64, 0, {0, 150, 200}},
    {"window 63", 320, 2, 64, 63, {0, 320}},
    {"window 64", 320, 2, 64, 64, {0, 320}},
    {"window 65", 320, 2, 64, 65, {0, 320}},
    {"window 128, D 128", 449, 3, 128, 128, {0, 64, 128, 449}},
    {"window beyond T", 333, 2, 80, 5000, {0, 333}},
    {"documents of one token", 131, 2, 16, 8, one_token_documents(131)},
    {"empty segments and padding", 300, 2, 64, 96, {0, 0, 5, 5, 5, 70, 191, 192, 193, 300, 300, 300}},
    {"documents at block edges", 512, 1, 64, 384, {0, 64, 192, 256, 512}},
    {"two tasks a head", 1300, 2, 16, 40, {0, 1, 130, 1000, 1023, 1300, 1300}},
    {"odd head size", 150, 2, 18, 30, {0, 77, 150}},
};

AttentionMask mask_of(const Case& c) {
    return {at::tensor(c.cu_seqlens, at::TensorOptions(at::kInt)), c.window};
}

// q, k and v (or their gradients) as slices of one buffer [T, 3 * H * D], as the model holds them.
struct Triple {
    explicit Triple(const at::Tensor& b) : buffer(b) {}
    at::Tensor operator[](int64_t i) const { return buffer.select(1, i); }
    AttentionGrads grads() const { return {(*this)[0], (*this)[1], (*this)[2]}; }
    at::Tensor buffer;
};

Triple empty_triple(const Case& c, at::ScalarType dtype) {
    return Triple(at::full({c.T, 3, c.H, c.D}, std::numeric_limits<double>::quiet_NaN(), dtype));
}

struct Results {
    at::Tensor out, lse;
    Triple gradients;
};

constexpr double kScale = 0.12;

struct Inputs {
    Inputs(const Case& c, at::ScalarType dtype)
        : qkv(at::randn({c.T, 3, c.H, c.D}, at::kFloat).to(dtype)),
          dout(at::randn({c.T, c.H, c.D}, at::kFloat).to(dtype)) {}
    Triple qkv;
    at::Tensor dout;
};

Results run(const Case& c, const Inputs& in) {
    const at::ScalarType dtype = in.dout.scalar_type();
    const AttentionMask mask = mask_of(c);
    Results r{at::full_like(in.dout, std::numeric_limits<double>::quiet_NaN()),
              at::full({c.H, c.T}, std::numeric_limits<double>::quiet_NaN(), at::kFloat),
              empty_triple(c, dtype)};
    const auto attention = Attention::make(Attention::Backend::standard, at::kCPU);
    attention->forward(in.qkv[0], in.qkv[1], in.qkv[2], mask, kScale, r.out, r.lse);
    const AttentionGrads memory = r.gradients.grads();
    const auto [dq, dk, dv] =
        attention->backward(in.dout, in.qkv[0], in.qkv[1], in.qkv[2], r.out, r.lse, mask, kScale, memory);
    EXPECT_TRUE(dq.is_same(memory.dq) && dk.is_same(memory.dk) && dv.is_same(memory.dv));
    return r;
}

// The definition in fp64, from the inputs as they were rounded.
Results run_reference(const Case& c, const Inputs& in) {
    const Triple qkv(in.qkv.buffer.to(at::kDouble));
    const at::Tensor dout = in.dout.to(at::kDouble);
    const AttentionMask mask = mask_of(c);
    Results r{at::empty_like(dout), at::empty({c.H, c.T}, at::kDouble), empty_triple(c, at::kDouble)};
    attention_forward_reference(qkv[0], qkv[1], qkv[2], mask, kScale, r.out, r.lse);
    attention_backward_reference(dout, qkv[0], qkv[1], qkv[2], r.out, r.lse, mask, kScale, r.gradients[0],
                                 r.gradients[1], r.gradients[2]);
    return r;
}

// Largest error in units of the largest number of the tensor, or of 1 where that is smaller (a query that
// sees one key has dq = 0). NaN counts as infinite.
double error_of(const at::Tensor& found, const at::Tensor& expected) {
    const at::Tensor difference = (found.to(at::kDouble) - expected).abs();
    if (!difference.isfinite().all().item<bool>()) return std::numeric_limits<double>::infinity();
    return difference.max().item<double>() / std::max(1.0, expected.abs().max().item<double>());
}

void expect_near(const Results& found, const Results& expected, double tolerance, double lse_tolerance) {
    EXPECT_LE(error_of(found.out, expected.out), tolerance) << "out";
    // An lse may be about 0, so its error counts absolutely: it is one of the exponent.
    EXPECT_LE((found.lse.to(at::kDouble) - expected.lse).abs().max().item<double>(), lse_tolerance) << "lse";
    EXPECT_LE(error_of(found.gradients[0], expected.gradients[0]), tolerance) << "dq";
    EXPECT_LE(error_of(found.gradients[1], expected.gradients[1]), tolerance) << "dk";
    EXPECT_LE(error_of(found.gradients[2], expected.gradients[2]), tolerance) << "dv";
}

// Scores are sums of D <= 128 products of size about 0.12 and reach 5: rounding them to 24 bits as they are
// summed leaves an error of some 1e-6 in the exponent, and everything after that is relative to it. Measured:
// 2e-6.
constexpr double kTolerance = 8e-6;

TEST(Attention, Fp32AgreesWithReference) {
    at::manual_seed(1);
    for (const Case& c : kCases) {
        SCOPED_TRACE(c.name);
        const Inputs in(c, at::kFloat);
        expect_near(run(c, in), run_reference(c, in), kTolerance, kTolerance);
    }
}

// bf16 keeps 8 bits: P and dS are rounded once (2^-9 each), the results once more, and errors of several keys
// add.
TEST(Attention, Bf16AgreesWithReference) {
    at::manual_seed(2);
    for (const Case& c : kCases) {
        SCOPED_TRACE(c.name);
        const Inputs in(c, at::kBFloat16);
        expect_near(run(c, in), run_reference(c, in), 0x1p-7, kTolerance);
    }
}

// The reference itself against automatic differentiation of a definition written with loops over the mask.
TEST(Attention, ReferenceIsTheGradientOfTheDefinition) {
    at::manual_seed(3);
    const Case c{"", 70, 2, 16, 9, {0, 0, 3, 20, 20, 70, 70}};
    const Inputs in(c, at::kDouble);
    const std::vector<int64_t> start = [&] {
        std::vector<int64_t> of(70, 0);
        for (int64_t t = 0; t < 70; ++t) of[static_cast<size_t>(t)] = t < 3 ? 0 : t < 20 ? 3 : 20;
        return of;
    }();
    const at::Tensor hidden = at::ones({c.T, c.T}, at::kBool);
    for (int64_t t = 0; t < c.T; ++t) {
        for (int64_t key = 0; key < c.T; ++key) {
            const bool seen = key <= t && key >= t - c.window && key >= start[static_cast<size_t>(t)];
            hidden[t][key].fill_(!seen);
        }
    }
    const at::Tensor qkv = in.qkv.buffer.detach().clone().requires_grad_();
    const at::Tensor q = qkv.select(1, 0).transpose(0, 1), k = qkv.select(1, 1).transpose(0, 1);
    const at::Tensor scores = at::matmul(q, k.transpose(1, 2)) * kScale;
    const at::Tensor p = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
    const at::Tensor out = at::matmul(p, qkv.select(1, 2).transpose(0, 1)).transpose(0, 1);
    out.backward(in.dout);
    const Results r = run_reference(c, in);
    EXPECT_LE(error_of(r.out, out.detach()), 1e-14);
    EXPECT_LE(error_of(r.gradients.buffer, qkv.grad()), 1e-13);
}

TEST(Attention, RepeatsBitForBitWithAnyNumberOfThreads) {
    at::manual_seed(4);
    const Case& c = kCases[13];
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const Inputs in(c, dtype);
        const Results first = run(c, in);
        const int threads = at::get_num_threads();
        for (const int count : {1, 2, 3}) {
            at::set_num_threads(count);
            const Results again = run(c, in);
            EXPECT_TRUE(again.out.equal(first.out));
            EXPECT_TRUE(again.lse.equal(first.lse));
            EXPECT_TRUE(again.gradients.buffer.equal(first.gradients.buffer));
        }
        at::set_num_threads(threads);
    }
}

// Large scores: the running maximum has to move, and early sums have to vanish without overflow.
TEST(Attention, SurvivesLargeScores) {
    at::manual_seed(5);
    const Case c{"", 300, 1, 64, 200, {0, 300}};
    Inputs in(c, at::kFloat);
    in.qkv[0].mul_(30);
    const Results found = run(c, in), expected = run_reference(c, in);
    // Scores reach 150, thirty times those of the other tests.
    expect_near(found, expected, 30 * kTolerance, 30 * kTolerance);
}

TEST(Attention, OtherDtypesUseTheReference) {
    at::manual_seed(6);
    const Case c{"", 50, 2, 16, 9, {0, 20, 50}};
    const Inputs in(c, at::kDouble);
    const Results found = run(c, in), expected = run_reference(c, in);
    EXPECT_TRUE(found.out.equal(expected.out));
    EXPECT_TRUE(found.gradients.buffer.equal(expected.gradients.buffer));
}

TEST(Attention, RejectsWhatDoesNotFit) {
    const Case c{"", 50, 2, 16, 9, {0, 20, 50}};
    const Inputs in(c, at::kFloat);
    const at::Tensor out = at::empty_like(in.dout), lse = at::empty({2, 50}, at::kFloat);
    const auto attention = Attention::make(Attention::Backend::standard, at::kCPU);
    const auto forward = [&](const at::Tensor& k, std::vector<int32_t> cu, int64_t window,
                             const at::Tensor& to) {
        attention->forward(in.qkv[0], k, in.qkv[2], {at::tensor(cu, at::TensorOptions(at::kInt)), window},
                           kScale, out, to);
    };
    EXPECT_NO_THROW(forward(in.qkv[1], {0, 20, 50}, 9, lse));
    EXPECT_THROW(forward(in.qkv[1].slice(0, 0, 49), {0, 20, 50}, 9, lse), InternalError);
    EXPECT_THROW(forward(in.qkv[1].to(at::kBFloat16), {0, 20, 50}, 9, lse), InternalError);
    EXPECT_THROW(forward(in.qkv[1], {0, 20, 49}, 9, lse), InternalError);
    EXPECT_THROW(forward(in.qkv[1], {1, 20, 50}, 9, lse), InternalError);
    EXPECT_THROW(forward(in.qkv[1], {0, 60, 50}, 9, lse), InternalError);
    EXPECT_THROW(forward(in.qkv[1], {0, 30, 20, 50}, 9, lse), InternalError);
    EXPECT_THROW(forward(in.qkv[1], {0, 20, 50}, -1, lse), InternalError);
    EXPECT_THROW(forward(in.qkv[1], {0, 20, 50}, 9, lse.t()), InternalError);
}

TEST(Attention, EmptySequence) {
    const Case c{"", 0, 2, 16, 9, {0}};
    EXPECT_EQ(run(c, Inputs(c, at::kFloat)).out.numel(), 0);
}

// bf16 on a GPU.
Results on_gpu(const Case& c, const Inputs& in, const Attention& attention) {
    const AttentionMask mask{mask_of(c).cu_seqlens.to(at::kCUDA), c.window, 0};
    const Triple qkv(in.qkv.buffer.to(at::kCUDA));
    const at::Tensor dout = in.dout.to(at::kCUDA);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const Results r{at::full_like(dout, nan), at::full({c.H, c.T}, nan, dout.options().dtype(at::kFloat)),
                    Triple(at::full_like(qkv.buffer, nan))};
    attention.forward(qkv[0], qkv[1], qkv[2], mask, kScale, r.out, r.lse);
    const auto [dq, dk, dv] =
        attention.backward(dout, qkv[0], qkv[1], qkv[2], r.out, r.lse, mask, kScale, r.gradients.grads());
    return {r.out.cpu(), r.lse.cpu(), Triple(at::stack({dq, dk, dv}, 1).cpu())};
}

std::unique_ptr<Attention> gpu_attention(Attention::Backend backend) {
    return Attention::make(backend, at::Device(at::kCUDA, 0));
}

void expect_on_gpu(const Case& c, const Attention& attention) {
    SCOPED_TRACE(c.name);
    const Inputs in(c, at::kBFloat16);
    expect_near(on_gpu(c, in, attention), run_reference(c, in), 0x1p-7, kTolerance);
}

TEST(Attention, FlashOnAGpuAgreesWithReference) {
    if (!testing::have_gpu()) GTEST_SKIP() << "needs a GPU";
    at::manual_seed(7);
    for (const Case& c : kCases)
        if (c.D % 8 == 0)
            for (const auto backend : {Attention::Backend::standard, Attention::Backend::flash_atomic})
                expect_on_gpu(c, *gpu_attention(backend));
}

TEST(Attention, FlashOnAGpuGivesTheSameBits) {
    if (!testing::have_gpu()) GTEST_SKIP() << "needs a GPU";
    at::manual_seed(8);
    const Case c{"many blocks", 8192, 6, 128, 384, {0, 1500, 1600, 5000, 8192}};
    const Inputs in(c, at::kBFloat16);
    const auto attention = gpu_attention(Attention::Backend::standard);
    const Results first = on_gpu(c, in, *attention);
    for (int again = 0; again < 5; ++again) {
        const Results found = on_gpu(c, in, *attention);
        EXPECT_TRUE(found.out.equal(first.out));
        EXPECT_TRUE(found.gradients.buffer.equal(first.gradients.buffer));
    }
}

TEST(Attention, CudnnOnAGpuAgreesWithReference) {
    if (!testing::have_gpu()) GTEST_SKIP() << "needs a GPU";
    if (testing::real_gpu().kernels.compute_capability() < 90)
        GTEST_SKIP() << "needs a GPU of compute capability 9.0 or later";
    const auto cudnn = gpu_attention(Attention::Backend::cudnn);
    at::manual_seed(7);
    for (const Case& c : kCases)
        if (cuda::CudnnAttention::takes_head_dim(c.D)) expect_on_gpu(c, *cudnn);
}

}  // namespace
}  // namespace speedrun::ops
