// Kernels that are not a whole op each: the pass over logits, and the optimizers' updates. Emulated, and on a
// GPU where there is one, against the formulas in fp64.
#include <array>
#include <cmath>

#include "implementations.h"
#include "ops/head_loss.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

// Calls body(softcap_loss) for each implementation of it.
template <auto method, class Body>
void for_each_kernel(const Body& body) {
    {
        SCOPED_TRACE("emulated kernel");
        body([](const auto&... arguments) {
            (cuda::Fused(*speedrun_cuda_kernels(), nullptr).*method)(arguments...);
        });
    }
    if (!have_gpu()) return;
    SCOPED_TRACE("kernel on the GPU");
    body([](const auto&... arguments) {
        DeviceCopies copies(at::kCUDA);
        (cuda::on_device_of(at::empty({0}, at::kCUDA)).*method)(copies(arguments)...);
        copies.back();
    });
}

// Loss and gradient in fp64. Sums of V exponentials in fp32 are off by less than (V / 1024 + 40) roundings;
// expf and the divisions by 8 more.
void expect_softcap_loss(const auto& kernel, int64_t tokens, int64_t vocab, at::ScalarType dtype,
                         bool strided) {
    const Setting s{tokens, vocab, dtype, strided};
    const Softcap cap{30, 0.5, 7.5};
    const Buffer logits = s.buffer();
    logits.view.mul_(10);
    const Buffer kept{logits};
    const at::Tensor targets = at::randint(vocab, {tokens}, at::kLong), loss = at::empty({tokens});
    const at::Tensor z = leaf(logits.view);
    const at::Tensor expected =
        at::nll_loss(at::log_softmax(at::sigmoid((z + cap.b) / cap.c) * cap.a, 1), targets, {}, 0);
    expected.sum().backward();
    const double unit = s.arithmetic() * (static_cast<double>(vocab) / 1024 + 48);

    kernel(logits.view, targets, cap, 0.25, loss, at::Tensor());
    expect_within(loss, expected.detach(), (expected.detach().abs() + 2 * cap.a) * unit, "loss");
    const at::Tensor alone = loss.clone();
    kernel(logits.view, targets, cap, 0.25, loss, logits.view);
    EXPECT_TRUE(at::equal(loss, alone));
    const at::Tensor gradient = 0.25 * z.grad();
    // 1 - s loses digits where s is near 1, and p - 1 where p is: both are below 0.25 A / C.
    expect_within(logits.view, gradient, gradient.abs() * s.store() + 0.25 * cap.a / cap.c * 4 * unit,
                  "gradient");
    EXPECT_TRUE(logits.rest_untouched());
}

TEST(SoftcapLoss, IsLossAndGradient) {
    at::manual_seed(7);
    for_each_kernel<&cuda::Fused::softcap_loss>([](const auto& kernel) {
        for (const auto dtype : {at::kFloat, at::kBFloat16})
            for (const bool strided : {false, true})
                for (const int64_t vocab : {7, 1024, 8200})
                    expect_softcap_loss(kernel, 3, vocab, dtype, strided);
        expect_softcap_loss(kernel, 1, 50304, at::kBFloat16, false);
        expect_softcap_loss(kernel, 1, 60000, at::kBFloat16, false);  // more than a block holds
    });
}

// The bytes that ATen's conversion gives; 448 and 57344 are the largest numbers, beyond which ATen does not
// saturate.
TEST(QuantizeKernel, RoundsAsAtenAndTurns) {
    at::manual_seed(10);
    const cuda::Fused fused(*speedrun_cuda_kernels(), nullptr);
    for (const auto& [dtype, largest] : {std::pair{at::kFloat8_e4m3fn, 448.0}, {at::kFloat8_e5m2, 57344.0}})
        for (const auto from : {at::kFloat, at::kBFloat16})
            for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 200}, {130, 65}}) {
                const at::Tensor exponents = at::randint(-20, 18, {rows, cols}, at::kFloat);
                const at::Tensor x = (at::randn({rows, cols}) * at::exp2(exponents)).to(from);
                const auto [whole, turned] = fused.quantize(x, 0.25, dtype, true);
                const at::Tensor expected = (x.to(at::kFloat) * 4).clamp(-largest, largest).to(dtype);
                EXPECT_TRUE(at::equal(whole.view(at::kByte), expected.view(at::kByte)));
                EXPECT_TRUE(at::equal(turned.view(at::kByte), expected.view(at::kByte).t()));
                EXPECT_FALSE(fused.quantize(x, 0.25, dtype, false).transposed.defined());
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
    const at::Tensor targets = at::randint(1024, {512}, at::kLong);
    const Fp8Scales scales{16.0 / 448, 1.0 / 512, 1.0 / 448};
    const auto run = [&](at::Device device, bool reference) {
        const at::Tensor dx = at::empty({512, 256}, x.options().device(device));
        const at::Tensor dw = at::zeros({1024, 256}, x.options().device(device).dtype(at::kFloat));
        const at::Tensor loss = at::empty({512}, dw.options());
        const auto op = reference ? &head_loss_backward_reference : &head_loss_backward;
        op(x.to(device), w.to(device), targets.to(device), Softcap{}, 1, loss, dx, dw, scales);
        return std::array{loss.cpu(), dx.cpu().to(at::kFloat), dw.cpu()};
    };
    const auto expected = run(at::kCPU, true), found = run(at::kCUDA, false);
    for (size_t i = 0; i < 3; ++i)
        EXPECT_LT(((found[i] - expected[i]).norm() / expected[i].norm()).item<double>(), i == 0 ? 1e-3 : 2e-2)
            << i;
}

TEST(AdamKernel, IsTheFormula) {
    at::manual_seed(8);
    for_each_kernel<&cuda::Fused::adam_update>([](const auto& kernel) {
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
                    kernel(value, grad, m, v, copy,
                           speedrun::cuda::Adam{.value = {},
                                                .grad = {},
                                                .exp_avg = {},
                                                .exp_avg_sq = {},
                                                .copy = {},
                                                .beta1 = 0.65F,
                                                .beta2 = 0.95F,
                                                .eps = 1e-8F,
                                                .step_size = 0.03F,
                                                .keep = 0.99F});
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
    at::manual_seed(9);
    for_each_kernel<&cuda::Fused::momentum_update>([](const auto& kernel) {
        for (const int64_t count : {1, 1023, 4096})
            for (const auto dtype : {at::kFloat, at::kBFloat16})
                for (const bool nesterov : {false, true}) {
                    const at::Tensor grad = at::randn({count}).to(dtype),
                                     momentum = at::randn({count}).to(dtype);
                    const at::Tensor update = at::empty({count}, at::kBFloat16);
                    const double mu = 0.95F;
                    const at::Tensor m = wide(momentum) + (1 - mu) * (wide(grad) - wide(momentum));
                    const at::Tensor terms = wide(momentum).abs() + wide(grad).abs(), g = wide(grad);
                    kernel(grad, momentum, update, 0.95, nesterov);
                    expect_within(momentum, m, terms * (store_unit(dtype) + 4 * arithmetic_unit(dtype)),
                                  "momentum");
                    const at::Tensor u = nesterov ? g + mu * (m - g) : m;
                    const double roundings = 2 * store_unit(dtype) + store_unit(at::kBFloat16);
                    expect_within(update, u, 2 * terms * roundings, "update");
                    EXPECT_TRUE(at::equal(grad, at::zeros_like(grad)));
                }
    });
}

}  // namespace
}  // namespace speedrun::ops
