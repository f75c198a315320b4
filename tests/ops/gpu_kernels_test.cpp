// Kernels that are not a whole op each: the pass over logits, and the optimizers' updates. Emulated, and on a
// GPU where there is one, against the formulas in fp64.
#include <array>
#include <cmath>

#include "implementations.h"
#include "ops/cuda/gram.h"
#include "ops/cuda/head.h"
#include "ops/head_loss.h"
#include "ops/optim/adam_update.h"
#include "ops/optim/matrix_update.h"
#include "row_op_testing.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using namespace testing;

// Calls body(kernel) for each implementation of it.
template <auto kernel, class Body>
void for_each_kernel(const Body& body) {
    {
        SCOPED_TRACE("emulated kernel");
        body([](const auto&... arguments) { kernel(emulated_gpu(), arguments...); });
    }
    if (!have_gpu()) return;
    SCOPED_TRACE("kernel on the GPU");
    body([](const auto&... arguments) {
        DeviceCopies copies(at::kCUDA);
        kernel(real_gpu(), copies(arguments)...);
        copies.back();
    });
}

// Loss and gradient in fp64. Sums of V exponentials in fp32 are off by less than (V / 1024 + 40) roundings;
// expf and the divisions by 8 more.
void expect_softcap_loss(const auto& kernel, int64_t tokens, int64_t vocab, at::ScalarType dtype,
                         bool strided, const Softcap& cap = {30, 0.5, 7.5}) {
    const Setting s{tokens, vocab, dtype, strided};
    const Buffer logits = s.buffer();
    logits.view.mul_(10);
    const Buffer kept{logits};
    const at::Tensor targets = at::randint(vocab, {tokens}, at::kLong), loss = at::empty({tokens});
    const at::Tensor z = leaf(logits.view);
    const at::Tensor capped = cap.form == Softcap::Form::rsqrt
                                  ? cap.a * z * (z.square() + cap.a * cap.a).rsqrt()
                                  : at::sigmoid((z + cap.b) / cap.c) * cap.a;
    const at::Tensor expected = at::nll_loss(at::log_softmax(capped, 1), targets, {}, 0);
    expected.sum().backward();
    const double unit = s.arithmetic() * (static_cast<double>(vocab) / 1024 + 48);

    kernel(logits.view, Targets(targets), cap, 0.25, loss, at::Tensor());
    expect_within(loss, expected.detach(), (expected.detach().abs() + 2 * cap.height()) * unit, "loss");
    const at::Tensor alone = loss.clone();
    kernel(logits.view, Targets(targets), cap, 0.25, loss, logits.view);
    EXPECT_TRUE(at::equal(loss, alone));
    const at::Tensor gradient = 0.25 * z.grad();
    // 1 - s loses digits where s is near 1, and p - 1 where p is: both are below 0.25 of the slope.
    expect_within(logits.view, gradient, gradient.abs() * s.store() + 0.25 * cap.slope() * 4 * unit,
                  "gradient");
    EXPECT_TRUE(logits.rest_untouched());
}

// The kernel against the reference of the whole op, of which it is what lies between the products: w is the
// identity, so that x are the logits and dx their gradient.
TEST(SoftcapLoss, WeighsSeveralTargets) {
    at::manual_seed(17);
    for_each_kernel<&cuda::softcap_loss>([](const auto& kernel) {
        for (const auto tail : {Targets::Tail::drop, Targets::Tail::keep_normaliser})
            for (const int64_t left : {5, 7}) {  // two tokens more than rows, or none
                const at::Tensor x = at::randn({left, 24}) * 5, identity = at::eye(24),
                                 dw = at::zeros({24, 24});
                const at::Tensor prefix_of = at::full({24}, -1, at::kLong);
                prefix_of.narrow(0, 0, 4).copy_(at::tensor({-1, 0, 3, 23}, at::kLong));
                for (const bool prefixes : {false, true}) {
                    const Targets targets(
                        at::randint(4, {left}, at::kLong), at::tensor({1.0, 0.5, 0.25}, at::kFloat), tail,
                        prefixes ? prefix_of : at::Tensor(), at::tensor({0.125}, at::kFloat));
                    const at::Tensor wanted = at::empty({left}), dx = at::empty_like(x);
                    head_loss_backward_reference(x, identity, targets, {23, 5, 7.5}, 0.25, wanted, dx, dw);
                    const at::Tensor logits = x.narrow(0, 0, 5).clone(), loss = at::empty({5});
                    kernel(logits, targets, Softcap{23, 5, 7.5}, 0.25, loss, logits);
                    // Two ways of the same fp32 arithmetic on numbers below 64, and below 2.
                    EXPECT_LE((loss - wanted.narrow(0, 0, 5)).abs().max().item<double>(), 64 * 0x1p-22);
                    EXPECT_LE((logits - dx.narrow(0, 0, 5)).abs().max().item<double>(), 2 * 0x1p-20);
                }
            }
    });
}

TEST(SoftcapLoss, IsLossAndGradient) {
    at::manual_seed(7);
    for_each_kernel<&cuda::softcap_loss>([](const auto& kernel) {
        for (const auto dtype : {at::kFloat, at::kBFloat16})
            for (const bool strided : {false, true})
                for (const int64_t vocab : {7, 1024, 8200})
                    expect_softcap_loss(kernel, 3, vocab, dtype, strided);
        for (const auto dtype : {at::kFloat, at::kBFloat16})
            for (const int64_t vocab : {7, 1024})
                expect_softcap_loss(kernel, 3, vocab, dtype, false, {.a = 15, .form = Softcap::Form::rsqrt});
        expect_softcap_loss(kernel, 1, 50304, at::kBFloat16, false);
        // more than the shared memory of a block holds
        expect_softcap_loss(kernel, 1, 60000, at::kFloat, false);
        expect_softcap_loss(kernel, 1, 120000, at::kBFloat16, false);
    });
}

// The bytes that ATen's conversion gives; 448 and 57344 are the largest numbers, beyond which ATen does not
// saturate.
TEST(QuantizeKernel, RoundsAsAtenAndTurns) {
    at::manual_seed(10);
    const cuda::Gpu gpu = emulated_gpu();
    for (const auto& [dtype, largest] : {std::pair{at::kFloat8_e4m3fn, 448.0}, {at::kFloat8_e5m2, 57344.0}})
        for (const auto from : {at::kFloat, at::kBFloat16})
            for (const auto& [rows, cols] : {std::pair{16, 16}, {48, 208}, {144, 64}, {272, 400}}) {
                const at::Tensor exponents = at::randint(-20, 18, {rows, cols}, at::kFloat);
                const at::Tensor x = (at::randn({rows, cols}) * at::exp2(exponents)).to(from);
                const auto [whole, turned] = cuda::quantize(gpu, x, 0.25, dtype);
                const at::Tensor expected = (x.to(at::kFloat) * 4).clamp(-largest, largest).to(dtype);
                EXPECT_TRUE(at::equal(whole.view(at::kByte), expected.view(at::kByte)));
                EXPECT_TRUE(at::equal(turned.view(at::kByte), expected.view(at::kByte).t()));
            }
    EXPECT_THROW(cuda::quantize(gpu, at::ones({16, 24}), 1, at::kFloat8_e5m2), InternalError);
    // Rows whose bytes cannot be moved in packs.
    const at::Tensor x = at::randn({16, 17}).narrow(1, 1, 16);
    EXPECT_TRUE(at::equal(cuda::quantize(gpu, x, 1, at::kFloat8_e5m2).whole.view(at::kByte),
                          x.to(at::kFloat8_e5m2).view(at::kByte)));
}

// The bytes that quantizing the gradient in bf16 gives.
TEST(SoftcapLoss, LeavesTheGradientInEightBits) {
    at::manual_seed(15);
    const cuda::Gpu gpu = emulated_gpu();
    const Softcap cap{30, 0.5, 7.5};
    const double scale = 0.25 / 448;
    for (const int64_t vocab : {16, 1024, 57360}) {
        const at::Tensor logits = (at::randn({16, vocab}) * 10).to(at::kBFloat16);
        const at::Tensor next = at::randint(vocab, {16}, at::kLong), loss = at::empty({16}),
                         expected_loss = at::empty({16}), gradient = at::empty_like(logits);
        const Targets targets(next, {}, Targets::Tail::drop, at::randint(-1, vocab, {vocab}, at::kLong),
                              at::tensor({0.25}, at::kFloat));
        cuda::softcap_loss(gpu, logits, targets, cap, 0.25, expected_loss, gradient);
        const auto expected = cuda::quantize(gpu, gradient, scale, at::kFloat8_e5m2);
        const auto found = cuda::softcap_loss_fp8(gpu, logits, targets, cap, 0.25, loss, scale);
        EXPECT_TRUE(loss.equal(expected_loss));
        EXPECT_TRUE(found.whole.view(at::kByte).equal(expected.whole.view(at::kByte))) << vocab;
        EXPECT_TRUE(found.transposed.view(at::kByte).equal(expected.transposed.view(at::kByte))) << vocab;
    }
}

// On a GPU alone: both sides quantize alike, and differ in how products add up (fast accumulation keeps 14
// bits).
TEST(Gpu, Fp8HeadIsTheReference) {
    if (!have_gpu() || !has_fp8(at::Device(at::kCUDA)))
        GTEST_SKIP() << "needs a GPU that multiplies 8-bit floats";
    at::manual_seed(11);
    const at::Tensor x = at::randn({512, 256}).to(at::kBFloat16),
                     w = (at::randn({1024, 256}) * 0.1).to(at::kBFloat16);
    const Targets targets(at::randint(1024, {512}, at::kLong), {}, Targets::Tail::drop,
                          at::randint(-1, 1024, {1024}, at::kLong), at::tensor({0.25}, at::kFloat));
    const Fp8Scales scales{16.0 / 448, 1.0 / 512, 1.0 / 448};
    const auto run = [&](at::Device device, bool reference) {
        const at::Tensor dx = at::empty({512, 256}, x.options().device(device));
        const at::Tensor dw = at::zeros({1024, 256}, x.options().device(device).dtype(at::kFloat));
        const at::Tensor loss = at::empty({512}, dw.options());
        const auto op = reference ? &head_loss_backward_reference : &head_loss_backward;
        op(x.to(device), w.to(device), DeviceCopies(device)(targets), Softcap{}, 1, loss, dx, dw, scales);
        return std::array{loss.cpu(), dx.cpu().to(at::kFloat), dw.cpu()};
    };
    const auto expected = run(at::kCPU, true), found = run(at::kCUDA, false);
    for (size_t i = 0; i < 3; ++i)
        EXPECT_LT(((found[i] - expected[i]).norm() / expected[i].norm()).item<double>(), i == 0 ? 1e-3 : 2e-2)
            << i;
}

// Products of bf16 are exact in fp32; sums of K of them are off by K roundings, twice that where tensor cores
// cut digits off.
void expect_gram(const auto& kernel, int64_t count, int64_t rows, int64_t cols, double beta) {
    const at::Tensor x = at::randn({count, rows, cols}).to(at::kBFloat16);
    const at::Tensor half = at::randn({count, rows, rows});
    const at::Tensor addend = (half + half.mT()).to(at::kBFloat16);
    const at::Tensor c = at::full_like(addend, NAN);
    kernel(x, c, -0.75, beta, beta == 0 ? at::Tensor() : addend);
    const at::Tensor xd = wide(x), added = beta * wide(addend);
    const at::Tensor expected = -0.75 * xd.bmm(xd.mT()) + added;
    const at::Tensor sizes = 0.75 * xd.abs().bmm(xd.abs().mT()) + added.abs();
    expect_within(c, expected,
                  expected.abs() * store_unit(at::kBFloat16) +
                      sizes * arithmetic_unit(at::kFloat) * (2 * static_cast<double>(cols) + 4),
                  "c");
    EXPECT_TRUE(c.equal(c.mT()));
}

// Sizes on and off the edges of tiles and stages; fewer stages than are in flight, and many.
TEST(GramKernel, IsXXTAndAddend) {
    at::manual_seed(14);
    for_each_kernel<&cuda::gram>([](const auto& kernel) {
        for (const auto& [count, rows, cols] : std::vector<std::array<int64_t, 3>>{
                 {1, 8, 8}, {2, 128, 32}, {2, 136, 104}, {1, 264, 40}, {2, 24, 512}})
            for (const double beta : {0.0, 2.5}) {
                SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols));
                expect_gram(kernel, count, rows, cols, beta);
            }
    });
    const cuda::Gpu gpu = emulated_gpu();
    const at::Tensor x = at::randn({1, 8, 16}).to(at::kBFloat16), c = at::empty({1, 8, 8}, x.options());
    EXPECT_THROW(cuda::gram(gpu, x.narrow(2, 0, 8), c, 1, 0, {}), InternalError);
    EXPECT_THROW(cuda::gram(gpu, x.to(at::kFloat), c.to(at::kFloat), 1, 0, {}), InternalError);
    EXPECT_THROW(cuda::gram(gpu, x, c.to(at::kFloat), 1, 0, {}), InternalError);
    EXPECT_THROW(
        cuda::gram(gpu, at::empty({1, 12, 16}, x.options()), at::empty({1, 12, 12}, x.options()), 1, 0, {}),
        InternalError);
}

TEST(AdamKernel, IsTheFormula) {
    at::manual_seed(8);
    for_each_kernel<&cuda::adam_update>([](const auto& kernel) {
        for (const int64_t count : {1, 1023, 4096})
            for (const auto dtype : {at::kFloat, at::kBFloat16})
                for (const auto state : {at::kFloat, at::kBFloat16}) {
                    const at::Tensor value = at::randn({count}).to(dtype),
                                     grad = at::randn({count}).to(dtype);
                    const at::Tensor m = at::randn({count}).to(state), v = at::rand({count}).to(state);
                    const at::Tensor copy = at::empty({count}, at::kBFloat16);
                    const double keep = 0.99, size = 0.03, eps = 1e-8;
                    const at::Tensor first = 0.65F * wide(m) + (1 - 0.65F) * wide(grad);
                    const at::Tensor second = 0.95F * wide(v) + (1 - 0.95F) * wide(grad).square();
                    const at::Tensor next = keep * wide(value) - size * first / (second.sqrt() + eps);
                    const at::Tensor terms = wide(m).abs() + wide(grad).abs() + first.abs();
                    const at::Tensor size_of = wide(value).abs() + size * (first / second.sqrt()).abs() +
                                               size * (wide(m).abs() + wide(grad).abs()) / second.sqrt();
                    kernel(value, grad, m, v, copy, AdamStep{0.65F, 0.95F, 1e-8F, 0.03F, 0.01F});
                    const double unit = 8 * arithmetic_unit(dtype);
                    expect_within(value, next, next.abs() * store_unit(dtype) + size_of * unit, "value");
                    expect_within(m, first, first.abs() * store_unit(state) + terms * unit, "exp_avg");
                    expect_within(v, second, second.abs() * (store_unit(state) + unit), "exp_avg_sq");
                    EXPECT_TRUE(at::equal(copy, value.to(at::kBFloat16)));
                    EXPECT_TRUE(at::equal(grad, at::zeros_like(grad)));
                }
    });
}

TEST(MomentumKernel, IsTheFormula) {
    using Form = MatrixConfig::Momentum::Form;
    at::manual_seed(9);
    for_each_kernel<&cuda::momentum_update>([](const auto& kernel) {
        for (const int64_t count : {1, 1023, 4096})
            for (const auto dtype : {at::kFloat, at::kBFloat16})
                for (const auto& [lerp, nesterov] :
                     {std::pair{true, false}, {true, true}, {false, false}, {false, true}}) {
                    const at::Tensor grad = at::randn({count}).to(dtype),
                                     momentum = at::randn({count}).to(dtype);
                    const at::Tensor update = at::empty({count}, at::kBFloat16);
                    const double mu = 0.95F;
                    const at::Tensor m = lerp ? wide(momentum) + (1 - mu) * (wide(grad) - wide(momentum))
                                              : mu * wide(momentum) + wide(grad);
                    const at::Tensor terms = wide(momentum).abs() + wide(grad).abs(), g = wide(grad);
                    kernel(grad, momentum, update, StepNumber(0.95),
                           MatrixConfig::Momentum{.form = lerp ? Form::lerp : Form::accumulate,
                                                  .nesterov = nesterov});
                    expect_within(momentum, m, terms * (store_unit(dtype) + 4 * arithmetic_unit(dtype)),
                                  "momentum");
                    const at::Tensor u = !nesterov ? m : lerp ? g + mu * (m - g) : g + mu * m;
                    const double roundings = 2 * store_unit(dtype) + store_unit(at::kBFloat16);
                    expect_within(update, u, 2 * terms * roundings, "update");
                    EXPECT_TRUE(at::equal(grad, at::zeros_like(grad)));
                }
    });
}

// The contract of ops/optim/matrix_update.h in fp64.
struct MatrixCase {
    int64_t count, rows, cols;
    bool moments, of_rows, eps_added, has_factors;
    MatrixConfig::Scale scale;
    MatrixConfig::Decay decay;
};

void expect_matrix_update(const auto& kernel, const MatrixCase& c, at::ScalarType update_type,
                          at::ScalarType value_type) {
    using Scale = MatrixConfig::Scale;
    using Decay = MatrixConfig::Decay;
    using EpsForm = MatrixConfig::EpsForm;
    const MatrixStep numbers{.lr = 0.03F,
                             .decay = 0.5F,
                             .moments = c.moments,
                             .beta2 = 0.95F,
                             .eps = 1e-8F,
                             .eps_form = c.eps_added ? EpsForm::add : EpsForm::clamp,
                             .correction = 0.75F,
                             .var_reduce_dim = c.of_rows ? -1 : -2,
                             .scale = c.scale,
                             .factor = 1.5F,
                             .decay_kind = c.decay};
    const at::Tensor update = at::randn({c.count, c.rows, c.cols}).to(update_type),
                     value = at::randn(update.sizes()).to(value_type);
    const at::Tensor copy = at::empty(update.sizes(), at::kBFloat16), factors = at::rand({c.count}) + 0.5;
    const at::Tensor moment = at::rand({c.count, c.of_rows ? c.rows : 1, c.of_rows ? 1 : c.cols}) + 0.1;
    const at::Tensor x = wide(update),
                     v = wide(moment).lerp(x.square().mean(c.of_rows ? -1 : -2, true), 1 - 0.95F);
    const auto norm = [](const at::Tensor& y) { return y.square().sum({-2, -1}, true).sqrt(); };
    at::Tensor u = x;
    if (c.moments) {
        const at::Tensor corrected = v / 0.75;
        u = c.eps_added ? x / (corrected.sqrt() + 1e-8F) : x * corrected.clamp_min(1e-8F).rsqrt();
        if (c.scale == Scale::restore_norm) u = u * norm(x) / norm(u);
        if (c.scale == Scale::paper) u = u * 0.2F * std::sqrt(static_cast<double>(c.rows * c.cols)) / norm(u);
    }
    u = u * 1.5;
    if (c.has_factors) u = u * wide(factors).view({-1, 1, 1});
    at::Tensor p = wide(value);
    const at::Tensor sizes = p.abs() + 0.03 * (u.abs() + p.abs());
    if (c.decay == Decay::cautious) u = u + 0.5 * p * (u * p).ge(0);
    if (c.decay == Decay::decoupled) p = p * 0.5;
    const at::Tensor expected = p - 0.03F * u;
    kernel(update, c.has_factors ? factors : at::Tensor(), c.moments ? moment : at::Tensor(), value, copy,
           numbers);
    // Sums of squares are off by as many roundings as they have terms in a row; 16 for the rest.
    const double unit = arithmetic_unit(value_type) * (static_cast<double>(c.rows + c.cols) + 16);
    expect_within(value, expected, expected.abs() * store_unit(value_type) + sizes * unit, "value");
    EXPECT_TRUE(at::equal(copy, value.to(at::kBFloat16)));
    if (c.moments) expect_within(moment, v, v * unit, "second_moment");
}

TEST(MatrixUpdateKernel, IsTheFormula) {
    using Scale = MatrixConfig::Scale;
    using Decay = MatrixConfig::Decay;
    at::manual_seed(12);
    for_each_kernel<&cuda::apply_matrix_update>([](const auto& kernel) {
        const MatrixCase cases[] = {
            {3, 7, 70, true, false, false, false, Scale::restore_norm, Decay::cautious},
            {2, 130, 20, true, true, false, true, Scale::restore_norm, Decay::decoupled},
            {2, 33, 65, true, true, true, false, Scale::paper, Decay::none},
            {1, 1, 12, true, false, true, false, Scale::none, Decay::cautious},
            {4, 5, 6, false, false, false, true, Scale::none, Decay::decoupled},
            {2, 12, 1, true, false, false, false, Scale::restore_norm, Decay::none},
            {2, 40, 132, true, false, false, true, Scale::restore_norm, Decay::cautious}};
        for (const MatrixCase& one : cases)
            for (const auto update_type : {at::kFloat, at::kBFloat16})
                for (const auto value_type : {at::kFloat, at::kBFloat16})
                    expect_matrix_update(kernel, one, update_type, value_type);
    });
}

// Numbers that lie in memory are those that count: the value beside them is that of another step.
TEST(StepNumbers, AreReadWhereTheyLie) {
    at::manual_seed(13);
    const cuda::Gpu gpu = emulated_gpu();
    const std::vector<at::Tensor> initial{at::randn({2, 6, 10}), at::randn({2, 6, 10}), at::rand({2, 6, 10}),
                                          at::rand({2, 6, 10}), at::rand({2, 1, 10})};
    const auto run = [&](const auto& number) {
        std::vector<at::Tensor> x;
        for (const at::Tensor& tensor : initial) x.push_back(tensor.clone());
        cuda::adam_update(gpu, x[0], x[1], x[2], x[3], {}, AdamStep{0.9F, 0.9F, 1e-8F, number(0), number(1)});
        x[1].copy_(initial[1]);
        cuda::momentum_update(gpu, x[1], x[2], x[3], number(2), MatrixConfig::Momentum{});
        for (const auto decay : {MatrixConfig::Decay::cautious, MatrixConfig::Decay::decoupled}) {
            const MatrixStep update{.lr = number(3),
                                    .decay = number(4),
                                    .moments = true,
                                    .beta2 = 0.9F,
                                    .eps = 1e-8F,
                                    .correction = number(5),
                                    .decay_kind = decay};
            cuda::apply_matrix_update(gpu, x[3], {}, x[4], x[0], {}, update);
        }
        return x;
    };
    const std::array<double, 6> numbers{0.02, 0.99, 0.95, 0.03, 0.4, 0.75};
    const auto by_value = run([&](size_t i) { return StepNumber(numbers[i]); });
    const auto by_place = run([&](size_t i) { return StepNumber(-7, at::tensor(numbers[i], at::kDouble)); });
    for (size_t i = 0; i < initial.size(); ++i) {
        EXPECT_TRUE(by_value[i].equal(by_place[i])) << "tensor " << i;
        EXPECT_FALSE(by_value[i].equal(initial[i])) << "tensor " << i;
    }
}

}  // namespace
}  // namespace speedrun::ops
