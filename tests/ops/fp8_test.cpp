// 8-bit floats of the MLPs of records 84 and 89 against numbers of the Python (tests/golden/fp8_units.json)
// and against the formulas in fp64.
#include "ops/fp8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "implementations.h"
#include "ops/cuda/head.h"
#include "ops/gemm.h"
#include "ops/relu2.h"
#include "row_op_testing.h"
#include "support/golden_match.h"

namespace speedrun::ops {
namespace {

using namespace testing;

const json& fp8_units() {
    static const json units = read_json(SPEEDRUN_SOURCE_DIR "/tests/golden/fp8_units.json");
    return units;
}

// ---- inputs, as the Python generator makes them

constexpr int64_t kTokens = 64, kWidth = 192, kHidden = 384, kMatrices = 3;

at::Tensor noise(const std::string& name, int64_t count) {
    const at::Tensor out = at::empty({count}, at::kDouble);
    const golden::Uniform uniform(name);
    for (int64_t i = 0; i < count; ++i)
        out.data_ptr<double>()[i] = std::sqrt(12.0) * (uniform(static_cast<uint64_t>(i)) - 0.5);
    return out;
}

// Neighbours of all numbers of e4m3 and e5m2 and of what lies half way between two.
std::vector<float> numbers_to_round() {
    std::vector<double> v = {0.0, -0.0};
    for (int e = -11; e < 10; ++e)
        for (int m = 0; m < 16; ++m) v.push_back(std::ldexp(1 + m / 16.0, e));
    for (int k = 0; k < 17; ++k) v.push_back(std::ldexp(k, -10));
    for (int k = 0; k < 9; ++k) v.push_back(std::ldexp(k, -17));
    for (const double x : {447.9, 448.0, 448.1, 463.9, 464.0, 464.1, 480.0, 1000.0, 57343.0, 57344.0, 57345.0,
                           61439.0, 61440.0, 61441.0, 65536.0, 1e6})
        v.push_back(x);
    const golden::Uniform uniform("fp8.round");
    for (uint64_t i = 0; i < 200; ++i) v.push_back(static_cast<float>(std::exp(12 * (uniform(i) - 0.4))));
    const std::vector<float> base(v.begin(), v.end());
    std::vector<float> all = base;
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float x : base) all.push_back(-x);
    for (const float x : base) all.push_back(std::nextafter(x, infinity));
    for (const float x : base) all.push_back(std::nextafter(x, -infinity));
    return all;
}

// One matrix of each kind, of layer `layer` at moment `s`: w1 and w2 [hidden, d], x and dout [T, d], bf16.
struct MlpInputs {
    at::Tensor w1, w2, x, dout;
};

at::Tensor layer_of(const std::string& name, int64_t layer, int64_t rows) {
    return noise(name, kMatrices * rows * kWidth).view({kMatrices, rows, kWidth})[layer];
}

MlpInputs mlp_inputs(int64_t s, int64_t layer) {
    constexpr std::array drift{1.0, 1.05, 1.3, 0.9, 1.25, 1.24};
    constexpr std::array up{0.5, 1.0, 0.2}, down{0.1, 0.5, 0.02};
    const auto of = [&](const char* kind) { return "fp8." + std::string(kind) + "." + std::to_string(s); };
    const auto at = static_cast<size_t>(layer);
    const double size = drift[static_cast<size_t>(s)] * std::pow(static_cast<double>(kWidth), -0.5);
    const at::Tensor wide_x =
        layer_of(of("x"), layer, kTokens) * (0.5 * noise(of("xs"), kWidth)).exp().view({1, kWidth});
    const at::Tensor normed = wide_x / (wide_x.square().mean(-1, /*keepdim=*/true) + 0x1p-23).sqrt();
    const auto stored = [](const at::Tensor& x) { return x.to(at::kFloat).to(at::kBFloat16); };
    return {stored(size * up[at] * layer_of(of("w1"), layer, kHidden)),
            stored(size * down[at] * layer_of(of("w2"), layer, kHidden)), stored(normed),
            stored(0.01 * layer_of(of("g"), layer, kTokens))};
}

// ---- bytes

at::Tensor bytes_of(const at::Tensor& codes) {
    return codes.to(at::kFloat).to(at::kFloat8_e4m3fn).contiguous().view(at::kByte);
}

uint32_t crc32_of(const at::Tensor& codes) {
    const at::Tensor bytes = bytes_of(codes);
    uint32_t crc = ~0U;
    for (int64_t i = 0; i < bytes.numel(); ++i) {
        crc ^= bytes.const_data_ptr<uint8_t>()[i];
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320U : 0U);
    }
    return ~crc;
}

std::vector<uint8_t> hex_bytes(const std::string& text) {
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i < text.size(); i += 2)
        bytes.push_back(static_cast<uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
    return bytes;
}

at::Tensor one() {
    return at::ones({1});
}

TEST(Fp8, RoundsAsTheKernelsDo) {
    const std::vector<float> numbers = numbers_to_round();
    const auto expected = hex_bytes(fp8_units()["rounding"]["e4m3"]);
    ASSERT_EQ(numbers.size(), expected.size());
    const at::Tensor x = at::tensor(numbers).view({16, -1}), values = at::empty_like(x),
                     codes = at::empty_like(x, at::kFloat8_e4m3fn);
    const auto expect_codes = [&](const at::Tensor& found) {
        const at::Tensor bytes = bytes_of(found).view(-1);
        for (size_t i = 0; i < expected.size(); ++i)
            EXPECT_EQ(bytes.const_data_ptr<uint8_t>()[i], expected[i]) << numbers[i];
    };
    fp8_quantize(x, one(), Fp8Order::times, values);
    expect_codes(values);
    reference::fp8_quantize(x, one(), Fp8Order::times, codes);
    expect_codes(codes);
    cuda::fp8_quantize(emulated_gpu(), x, one(), Fp8Order::times, codes, {});
    expect_codes(codes);
}

// Of the emulation, which the tests of the head's kernels rely on.
TEST(Fp8, E5m2RoundsAsTheKernelsDo) {
    const std::vector<float> numbers = numbers_to_round();
    const auto expected = hex_bytes(fp8_units()["rounding"]["e5m2"]);
    const at::Tensor x = at::constant_pad_nd(at::tensor(numbers).view({-1, 16}), {0, 0, 0, 15});
    const at::Tensor bytes =
        cuda::quantize(emulated_gpu(), x, 1, at::kFloat8_e5m2).whole.view(at::kByte).view(-1);
    for (size_t i = 0; i < expected.size(); ++i)
        EXPECT_EQ(bytes.const_data_ptr<uint8_t>()[i], expected[i]) << numbers[i];
}

// Bits of the reference, which divides and rounds with ATen.
TEST(Fp8, QuantizesInEveryOrder) {
    const at::Tensor scale = at::full({1}, 0.0137F);
    for (const Fp8Order order :
         {Fp8Order::times, Fp8Order::over_inverse, Fp8Order::divided, Fp8Order::divided_in_dtype})
        for_each_setting(row_shapes, [&](const Setting& s) {
            const Buffer x = s.buffer(), to = s.buffer();
            const at::Tensor expected = at::empty(x.view.sizes(), at::kFloat8_e4m3fn);
            reference::fp8_quantize(x.view, scale, order, expected);
            const at::Tensor wanted = expected.to(at::kFloat).to(s.dtype);
            fp8_quantize(x.view, scale, order, to.view);
            EXPECT_TRUE(at::equal(to.view, wanted));
            EXPECT_TRUE(to.rest_untouched());
            if (s.dtype == at::kDouble) return;
            const at::Tensor codes = at::empty_like(expected);
            cuda::fp8_quantize(emulated_gpu(), x.view, scale, order, codes, {});
            EXPECT_TRUE(at::equal(codes.view(at::kByte), expected.view(at::kByte)));
        });
}

TEST(Fp8, KeepsNanAndBoundsInfinity) {
    const float infinity = std::numeric_limits<float>::infinity();
    const at::Tensor x = at::tensor({std::nanf(""), infinity, -infinity, 1e-30F}).view({1, 4}),
                     to = at::empty_like(x);
    fp8_quantize(x, one(), Fp8Order::times, to);
    EXPECT_TRUE(std::isnan(to[0][0].item<float>()));
    EXPECT_EQ(to[0][1].item<float>(), 448);
    EXPECT_EQ(to[0][2].item<float>(), -448);
    EXPECT_EQ(to[0][3].item<float>(), 0);
    const at::Tensor scale = at::full({1}, 3.0F);
    for (const int64_t i : {0, 1}) {
        fp8_delayed_scale(fp8_amax(x.narrow(1, i, 1)), 1.8, scale);
        EXPECT_EQ(scale.item<float>(), 3);
    }
    fp8_delayed_scale(fp8_amax(at::zeros({3, 2})), 448, scale);
    EXPECT_EQ(scale.item<float>(), 1e-12F);
}

// Maxima and scales, which kernels find together and ATen one after the other: the same bits.
TEST(Fp8, KernelsScaleAsTheOps) {
    const cuda::Gpu gpu = emulated_gpu();
    const auto expect_scales = [&](const at::Tensor& x) {
        const at::Tensor maxima = at::full({speedrun::cuda::kMostMaxima}, -1.0F), amax = fp8_amax(x),
                         bounded = amax.clamp_min(fp8_least_amax);
        cuda::fp8_maxima(gpu, x, maxima);
        at::Tensor exact = at::full({1}, 5.0F), delayed = at::full({1}, 6.0F), replaced = one(),
                   scales = at::empty({3}), w_scale = at::full({1}, 0.03F), expected = at::empty({1});
        cuda::fp8_next_scales(gpu, x, maxima, 1.12, exact, delayed, replaced);
        EXPECT_EQ(replaced.item<float>(), 6);
        fp8_exact_scale(amax, x.scalar_type(), expected);
        EXPECT_TRUE(at::equal(exact, expected) || expected.isnan().all().item<bool>());
        expected.fill_(6);
        fp8_delayed_scale(amax, 1.12, expected);
        EXPECT_TRUE(at::equal(delayed, expected));
        cuda::fp8_now_scales(gpu, x, maxima, w_scale, scales);
        const at::Tensor now = at::cat({bounded.reciprocal() * 448, w_scale * bounded / 448, one()});
        EXPECT_TRUE(at::equal(scales, now) || now.isnan().any().item<bool>());
        EXPECT_EQ(std::isnan(scales[0].item<float>()), std::isnan(now[0].item<float>()));
    };
    for_each_setting(row_shapes, [&](const Setting& s) {
        if (s.dtype == at::kDouble) return;
        const Buffer x = s.buffer();
        expect_scales(x.view);
        x.view[s.tokens - 1][s.d - 1] = std::nanf("");
        expect_scales(x.view);
        expect_scales(x.view.zero_());
    });
}

// In one pass what relu2, fp8_quantize and fp8_amax do in three; in place too.
TEST(Fp8, KernelSquaresAndQuantizes) {
    const cuda::Gpu gpu = emulated_gpu();
    const at::Tensor scale = at::full({1}, 0.0137F);
    for_each_setting(row_shapes, [&](const Setting& s) {
        if (s.dtype == at::kDouble) return;
        const Buffer x = s.buffer(), y = s.buffer();
        const at::Tensor maxima = at::full({speedrun::cuda::kMostMaxima}, -1.0F),
                         post = at::empty(x.view.sizes(), s.dtype), expected = at::empty_like(post),
                         codes = at::empty(x.view.sizes(), at::kFloat8_e4m3fn);
        relu2(x.view, post);
        fp8_quantize(post, scale, Fp8Order::over_inverse, expected);
        for (const at::Tensor& to : {y.view, x.view}) {
            cuda::fp8_relu2_quantize(gpu, x.view, scale, to, codes, maxima);
            EXPECT_TRUE(at::equal(to, post));
            EXPECT_TRUE(at::equal(codes.to(at::kFloat), expected.to(at::kFloat)));
            EXPECT_EQ(maxima.max().item<float>(), fp8_amax(post).item<float>());
        }
        EXPECT_TRUE(y.rest_untouched());
        maxima.fill_(-1);
        cuda::fp8_quantize(gpu, post, scale, Fp8Order::over_inverse, codes, maxima);
        EXPECT_TRUE(at::equal(codes.to(at::kFloat), expected.to(at::kFloat)));
        EXPECT_EQ(maxima.max().item<float>(), fp8_amax(post).item<float>());
    });
}

// Sums of K products that are exact in fp32, whatever their order; then one rounding of the scales' product,
// one of the sum by it, and the store's.
TEST(Fp8, ProductIsTheFormula) {
    at::manual_seed(3);
    for (const auto dtype : {at::kFloat, at::kBFloat16})
        for (const bool turned : {false, true})
            for (const auto& [rows, inner, cols] : {std::array{1, 2, 1}, {33, 64, 48}, {70, 130, 18}}) {
                const auto codes = [&](int64_t m, int64_t n) {
                    const at::Tensor x = (at::randn({m, n}) * 60).to(dtype), to = at::empty_like(x);
                    fp8_quantize(x, one(), Fp8Order::times, to);
                    return to;
                };
                const Fp8Matrix a{codes(rows, inner), at::full({1}, 0.3F)};
                const Fp8Matrix b{turned ? codes(inner, cols).t() : codes(cols, inner), at::full({1}, 0.07F)};
                const at::Tensor c = at::empty({rows, cols}, dtype);
                fp8_product(a, b, c);
                const double scale = double{0.3F} * double{0.07F};
                const at::Tensor expected = wide(a.codes).mm(wide(b.codes).t()) * scale;
                const at::Tensor sizes = wide(a.codes).abs().mm(wide(b.codes).abs().t()) * scale;
                expect_within(c, expected,
                              expected.abs() * store_unit(dtype) + sizes * (inner + 2.0) * 0x1p-24, "c");
            }
}

// ---- the Python's numbers

void expect_number(const at::Tensor& found, const json& expected) {
    const double value = expected.get<double>();  // in 9 digits
    EXPECT_NEAR(found.item<double>(), value, std::abs(value) * 5e-9);
}

// Sums of bf16 numbers of which some were rounded the other way, a digit of bf16 off.
void expect_bf16_sums(const at::Tensor& found, const json& expected, double moved) {
    const at::Tensor x = wide(found).contiguous().view(-1);
    for (const std::string kind : {"sum", "l2", "proj"})
        EXPECT_NEAR(at_checksum(x, kind), expected.at(kind).get<double>(), moved) << kind;
    const double largest = expected.at("amax").get<double>();  // in 11 digits
    EXPECT_NEAR(x.abs().max().item<double>(), largest, largest * 5e-11);
}

// Sums of exact products, so that a number that lies near the middle between two of bf16 is rounded as the
// Python rounds it.
at::Tensor exact_product(const Fp8Matrix& a, const Fp8Matrix& b) {
    return (wide(a.codes).mm(wide(b.codes).t()) * (wide(a.scale) * wide(b.scale))).to(at::kBFloat16);
}

// A layer's delayed scales from moment to moment.
class GoldenLayer {
  public:
    void expect_moment(const MlpInputs& in, const json& golden, bool exact) {
        const Fp8Matrix up = up_weights(in.w1, golden);
        const at::Tensor pre = expect_up(in.x, up, golden), post = at::empty_like(pre);
        const Fp8Matrix down = down_weights(in.w2, golden, exact);
        relu2(pre, post);
        expect_bf16_sums(post, golden["post"], 1e-6);
        expect_down(pre, post, down, golden);
        expect_backward(in, post, golden["backward"]);
    }

  private:
    static Fp8Matrix up_weights(const at::Tensor& w, const json& golden) {
        Fp8Matrix up{at::empty_like(w), at::empty({1})};
        fp8_quantize_weight(w, Fp8WeightScale::exact, Fp8Order::divided_in_dtype, 1, up.scale, at::ones({1}),
                            up.codes);
        expect_number(up.scale, golden["up_scale"]);
        EXPECT_EQ(crc32_of(up.codes), golden["w1_8"].get<uint32_t>());
        return up;
    }

    static at::Tensor expect_up(const at::Tensor& x, const Fp8Matrix& w, const json& golden) {
        const at::Tensor amax = fp8_amax(x), codes = at::empty_like(x);
        EXPECT_EQ(amax.item<double>(), golden["x_amax"].get<double>());
        fp8_quantize(x, amax.reciprocal() * fp8_largest, Fp8Order::times, codes);
        EXPECT_EQ(crc32_of(codes), golden["x8"].get<uint32_t>());
        const at::Tensor dequant = w.scale * amax / fp8_largest;
        expect_number(dequant, golden["dequant"]);
        const at::Tensor pre = exact_product({codes, dequant}, {w.codes, one()}), found = at::empty_like(pre);
        expect_bf16_sums(pre, golden["pre"], 1e-6);
        fp8_product_now(x, w, found);
        expect_same_but_ties(found, pre);
        return pre;
    }

    // A sum in fp32 that lies at the middle between two numbers of bf16 may be rounded the other way: of so
    // many in a thousand, by one digit.
    static void expect_same_but_ties(const at::Tensor& found, const at::Tensor& exact) {
        EXPECT_LE((found != exact).sum().item<int64_t>(), exact.numel() / 1000 + 1);
        expect_within(found, exact, exact.abs() * 0x1p-7, "product");
    }

    Fp8Matrix down_weights(const at::Tensor& w, const json& golden, bool exact) {
        Fp8Matrix down{at::empty_like(w), at::empty({1})};
        fp8_quantize_weight(w, exact ? Fp8WeightScale::exact : Fp8WeightScale::delayed, Fp8Order::divided,
                            1.12, down.scale, next_weight_scale_, down.codes);
        expect_number(down.scale, golden["down_scale_used"]);
        EXPECT_EQ(crc32_of(down.codes), golden["w2_8"].get<uint32_t>());
        expect_number(next_weight_scale_, golden["down_scale_next_delayed"]);
        down.codes = down.codes.t();
        return down;
    }

    void expect_down(const at::Tensor& pre, const at::Tensor& post, const Fp8Matrix& w, const json& golden) {
        expect_number(activation_scale_, golden["act_scale_used"]);
        const at::Tensor codes = at::empty_like(post);
        fp8_quantize(post, activation_scale_, Fp8Order::over_inverse, codes);
        EXPECT_EQ(crc32_of(codes), golden["post8"].get<uint32_t>());
        const at::Tensor out = exact_product({codes, activation_scale_}, w), found = at::empty_like(out);
        expect_bf16_sums(out, golden["out"], 1e-6);
        const at::Tensor squared = at::empty_like(pre);
        fp8_relu2_product(pre, squared, activation_scale_, 1.80, w, found);
        EXPECT_TRUE(at::equal(squared, post));
        expect_same_but_ties(found, out);
        expect_number(activation_scale_, golden["act_scale_next"]);
    }

    // From x, post and the weights in bf16 alone. Each sum in fp32 may be rounded to bf16 the other way: the
    // sums over tensors of norm l2 differ by less than 1e-4 of it.
    static void expect_backward(const MlpInputs& in, const at::Tensor& post, const json& golden) {
        const at::Tensor dpre = at::empty_like(post), dw1 = at::empty_like(in.w1),
                         dw2 = at::empty_like(in.w2), dx = at::empty_like(in.x);
        gemm(post.t(), in.dout, dw2);
        gemm(in.dout, in.w2.t(), dpre);
        relu2_backward_of_output(dpre, post, dpre);
        gemm(dpre.t(), in.x, dw1);
        gemm(dpre, in.w1, dx);
        for (const auto& [name, found] : {std::pair{"dW2", dw2}, {"dpre", dpre}, {"dW1", dw1}, {"dx", dx}}) {
            SCOPED_TRACE(name);
            expect_bf16_sums(found, golden.at(name), 1e-4 * golden.at(name).at("l2").get<double>());
        }
    }

    at::Tensor activation_scale_ = at::ones({1}), next_weight_scale_ = at::ones({1});
};

TEST(Fp8, MlpIsThePythons) {
    const json& mlp = fp8_units()["mlp"];
    for (int64_t layer = 0; layer < kMatrices; ++layer) {
        GoldenLayer state;
        for (int64_t s = 0; s < std::ssize(mlp["moments"]); ++s) {
            SCOPED_TRACE("layer " + std::to_string(layer) + ", moment " + std::to_string(s));
            const json& golden = mlp["moments"][static_cast<size_t>(s)][static_cast<size_t>(layer)];
            state.expect_moment(mlp_inputs(s, layer), golden, s < mlp["exact_moments"].get<int64_t>());
        }
    }
}

// On a GPU alone, against the same roundings on the CPU. Fast accumulation keeps 14 bits or so.
TEST(Gpu, Fp8ProductsAreTheCpus) {
    if (!have_gpu() || !has_fp8(at::Device(at::kCUDA)))
        GTEST_SKIP() << "needs a GPU that multiplies 8-bit floats";
    at::manual_seed(5);
    const at::Tensor x = at::randn({512, 256}).to(at::kBFloat16),
                     w = (at::randn({1024, 256}) * 0.1).to(at::kBFloat16);
    const auto run = [&](at::Device device) {
        const at::Tensor there = w.to(device), on = x.to(device);
        Fp8Matrix codes{at::empty(w.sizes(), there.options().dtype(fp8_storage(device, at::kBFloat16))),
                        at::empty({1}, there.options().dtype(at::kFloat))};
        const at::Tensor next = at::ones_like(codes.scale);
        fp8_quantize_weight(there, Fp8WeightScale::exact, Fp8Order::divided_in_dtype, 1.12, codes.scale, next,
                            codes.codes);
        const at::Tensor now = at::empty({512, 1024}, on.options()), later = at::empty_like(now),
                         post = at::empty_like(on);
        const at::Tensor scale = at::full({1}, 0.01F, codes.scale.options());
        fp8_product_now(on, codes, now);
        fp8_relu2_product(on, post, scale, 1.8, codes, later);
        return std::array{codes.codes.cpu().to(at::kFloat), scale.cpu(), next.cpu(), now.cpu().to(at::kFloat),
                          later.cpu().to(at::kFloat)};
    };
    const auto expected = run(at::kCPU), found = run(at::kCUDA);
    EXPECT_TRUE(at::equal(found[0], expected[0]));
    EXPECT_TRUE(at::equal(found[1], expected[1]));
    EXPECT_TRUE(at::equal(found[2], expected[2]));
    for (const size_t i : {3, 4})
        EXPECT_LT(((found[i] - expected[i]).norm() / expected[i].norm()).item<double>(), 1e-2) << i;
}

}  // namespace
}  // namespace speedrun::ops
