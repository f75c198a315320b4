#include "optim/matrix_pipeline.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <limits>

#include "compare.h"
#include "config/matrix_rules.h"
#include "oracle.h"

namespace speedrun {
namespace {

using Decay = MatrixConfig::Decay;
using Scale = MatrixConfig::Scale;
using EpsForm = MatrixConfig::EpsForm;
using Form = MatrixConfig::Momentum::Form;

MatrixConfig normuon_of_record43(Dtype dtype) {
    MatrixConfig config = matrix_defaults("normuon");
    config.weight_decay = 1.2;
    config.orthogonalize.dtype = dtype;
    config.decay = Decay::cautious;
    return config;
}

Parameter parameter(at::IntArrayRef shape, at::ScalarType dtype = at::kFloat) {
    at::manual_seed(3);
    const at::Tensor value = at::randn(shape).mul(0.1).to(dtype);
    ParamConfig config;
    config.name = "p";
    return {config, value, at::zeros_like(value), value};
}

OptimParamConfig row(const Parameter& p, double lr_mul = 1) {
    const auto sizes = p.value.sizes();
    OptimParamConfig out;
    out.param = "p";
    out.rule = OptimParamConfig::Rule::matrix;
    out.lr_mul = lr_mul;
    out.var_reduce_dim = -2;
    out.matrix_view = {sizes[0], sizes[1], sizes[2]};
    return out;
}

at::Tensor state(const MatrixPipeline& rule, const std::string& name) {
    const auto parts = rule.state();
    return std::ranges::find(parts, name, &StateTensor::name)->tensor;
}

// Six steps of several matrices against the transcription, with a learning rate and a momentum that change.
class Steps : public ::testing::TestWithParam<std::array<int64_t, 3>> {};

TEST_P(Steps, MatchTheTranscription) {
    const auto [n, rows, cols] = GetParam();
    Parameter p = parameter({n, rows, cols});
    const MatrixConfig config = normuon_of_record43(Dtype::fp32);
    const OptimParamConfig optim = row(p, 2);
    MatrixPipeline rule({config, optim, p});
    std::vector<oracle::NorMuon> want;
    for (int64_t i = 0; i < n; ++i) {
        const oracle::Matrix value = to_oracle(p.value[i]);
        want.push_back({oracle::Matrix(value.rows, value.cols), value, std::vector<double>(value.cols)});
    }
    for (int step = 0; step < 6; ++step) {
        const double lr_scale = 1 - 0.1 * step, mu = 0.85 + 0.01 * step;
        p.grad.copy_(at::randn({n, rows, cols}));
        for (int64_t i = 0; i < n; ++i) {
            want[static_cast<size_t>(i)].step(to_oracle(p.grad[i]), 0.03 * lr_scale, 2, 1.2, 0.95, mu);
        }
        rule.step(p, {lr_scale, mu, step + 1});
        EXPECT_TRUE(p.grad.eq(0).all().item<bool>());
    }
    for (int64_t i = 0; i < n; ++i) {
        const oracle::NorMuon& w = want[static_cast<size_t>(i)];
        const oracle::Matrix value = to_oracle(p.value[i]), momentum = to_oracle(state(rule, "momentum")[i]);
        double worst = 0;
        for (size_t j = 0; j < value.at.size(); ++j) {
            EXPECT_NEAR(momentum.at[j], w.momentum.at[j],
                        2e-6);  // fp32 rounding of numbers of size 1, six times
            worst = std::max(worst, std::abs(value.at[j] - w.value.at[j]));
        }
        // Steps of at most 0.06 * 1 whose direction is right to 6e-5 (see orthogonalize_test), six times; a
        // decay mask that flips where u * p is 0 within rounding adds 0.06 * 0.036 * |p| for a |p| as small.
        EXPECT_LT(worst, 6 * 0.06 * 6e-5);
        for (size_t j = 0; j < w.second_moment.size(); ++j) {
            const double got =
                state(rule, "second_moment")
                    .flatten()[i * static_cast<int64_t>(w.second_moment.size()) + static_cast<int64_t>(j)]
                    .item<double>();
            EXPECT_NEAR(got, w.second_moment[j], 1e-4 * w.second_moment[j]);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(
    NorMuon, Steps,
    ::testing::Values(std::array<int64_t, 3>{3, 16, 64}, std::array<int64_t, 3>{2, 24, 24},
                      std::array<int64_t, 3>{1, 1, 12}, std::array<int64_t, 3>{10, 6, 12},
                      std::array<int64_t, 3>{2, 40, 9}, std::array<int64_t, 3>{2, 70, 130}));

// Every choice of parts, both axes, all dtypes: fused against ATen.
TEST(MatrixUpdate, FusedAgreesWithAten) {
    at::manual_seed(5);
    for (const auto update_type : {at::kFloat, at::kBFloat16}) {
        for (const auto value_type : {at::kFloat, at::kBFloat16}) {
            for (const Scale scale : {Scale::none, Scale::restore_norm, Scale::paper}) {
                for (const auto decay : {Decay::none, Decay::decoupled, Decay::cautious}) {
                    for (const int64_t dim : {0, -1, -2}) {
                        const bool paper = scale == Scale::paper;
                        const ops::MatrixStep step{.lr = 0.03,
                                                   .decay = 0.2,
                                                   .moments = dim != 0,
                                                   .beta2 = 0.9,
                                                   .eps_form = paper ? EpsForm::add : EpsForm::clamp,
                                                   .correction = paper ? 0.5 : 1,
                                                   .var_reduce_dim = dim,
                                                   .scale = scale,
                                                   .factor = paper ? 1.5 : 1,
                                                   .decay_kind = decay};
                        const at::Tensor update = at::randn({3, 70, 19}).to(update_type);
                        const at::Tensor factors = dim == -1 ? at::rand({3}) : at::Tensor();
                        at::Tensor a = at::randn({3, 70, 19}).to(value_type), b = a.clone();
                        at::Tensor va =
                            at::rand(dim == -2 ? at::IntArrayRef{3, 1, 19} : at::IntArrayRef{3, 70, 1})
                                .to(value_type);
                        at::Tensor vb = va.clone(), copy = at::empty({3, 70, 19}, at::kBFloat16);
                        ops::apply_matrix_update(update, factors, va, a, copy, step);
                        ops::reference::apply_matrix_update(update, factors, vb, b, {}, step);
                        // Sums in another order; in bf16 that may land on the neighbour: values below 4,
                        // 2^-7 * 4.
                        EXPECT_LT(max_difference(a, b), value_type == at::kFloat ? 2e-6 : 0.032);
                        EXPECT_LT(max_difference(va, vb), value_type == at::kFloat ? 1e-6 : 0.008);
                        EXPECT_TRUE(copy.equal(a.to(at::kBFloat16)));
                    }
                }
            }
        }
    }
}

TEST(MomentumUpdate, FusedIsAtenBitForBitInBf16AndToRoundingInFp32) {
    at::manual_seed(6);
    for (const auto grad_type : {at::kFloat, at::kBFloat16}) {
        for (const auto update_type : {at::kFloat, at::kBFloat16}) {
            for (const auto& [form, nesterov] : {std::pair{Form::lerp, false},
                                                 {Form::lerp, true},
                                                 {Form::accumulate, false},
                                                 {Form::accumulate, true}}) {
                MatrixConfig::Momentum config;
                config.form = form;
                config.nesterov = nesterov;
                const at::Tensor grad = at::randn({1000}).to(grad_type),
                                 momentum = at::randn({1000}).to(grad_type);
                at::Tensor ga = grad.clone(), gb = grad.clone(), ma = momentum.clone(), mb = momentum.clone();
                at::Tensor ua = at::empty({1000}, update_type), ub = at::empty({1000}, update_type);
                ops::momentum_update(ga, ma, ua, 0.95, config);
                ops::reference::momentum_update(gb, mb, ub, 0.95, config);
                // A rounding that falls the other way after another contraction: one unit of the last place
                // below 4, or 8 where they add up.
                const double size = config.form == Form::lerp ? 1 : 2;
                const auto ulp = [&](at::ScalarType type) {
                    return size * (type == at::kFloat ? 4.8e-7 : 0.0157);
                };
                EXPECT_LE(max_difference(ma, mb), ulp(grad_type));
                EXPECT_LE(max_difference(ua, ub), std::max(ulp(update_type), ulp(grad_type)));
                EXPECT_LE(ma.ne(mb).sum().item<int64_t>(), grad_type == at::kFloat ? 1000 : 5);
                EXPECT_TRUE(ga.eq(0).all().item<bool>());
            }
        }
    }
}

TEST(NorMuon, LearningRateOfBf16ParametersIsRounded) {
    // An update of exactly 1 and a value of 0 show the rate: 0.03 is 0.030029296875 in bf16.
    at::Tensor value = at::zeros({1, 1, 4}, at::kBFloat16);
    Parameter p{{}, value, at::zeros_like(value), value};
    MatrixConfig config = normuon_of_record43(Dtype::fp32);
    config.decay = Decay::none;
    const OptimParamConfig optim = row(p);
    MatrixPipeline rule({config, optim, p});
    p.grad.fill_(1);
    rule.step(p, {1, 0, 1});
    const double step = -value.flatten()[0].item<double>();
    // The polynomial maps 1/1.02 to within 0.02 of 1, then all four are equal, so u = X = 1/2 of that.
    const double x = oracle::polar_express([] {
                         oracle::Matrix ones(1, 4);
                         ones.at.assign(4, 1.0);
                         return ones;
                     }())
                         .at[0];
    EXPECT_EQ(step, at::scalar_tensor(0.030029296875 * x).to(at::kBFloat16).item<double>());
}

TEST(NorMuon, ZeroGradientStillDecays) {
    Parameter p = parameter({2, 8, 16});
    const at::Tensor before = p.value.clone();
    const MatrixConfig config = normuon_of_record43(Dtype::fp32);
    const OptimParamConfig optim = row(p);
    MatrixPipeline rule({config, optim, p});
    rule.step(p, {1, 0.9, 1});
    // u = 0 passes the mask u * p >= 0 everywhere: p *= 1 - lr * lr * wd.
    EXPECT_LT(max_difference(p.value, before * (1 - 0.03 * 0.03 * 1.2)), 1e-7);
    EXPECT_TRUE(state(rule, "second_moment").eq(0).all().item<bool>());
}

TEST(NorMuon, NanGradientsAreVisible) {
    Parameter p = parameter({3, 8, 16});
    const MatrixConfig config = normuon_of_record43(Dtype::bf16);
    const OptimParamConfig optim = row(p);
    MatrixPipeline rule({config, optim, p});
    p.grad.copy_(at::randn({3, 8, 16}));
    p.grad[1][2][3] = std::numeric_limits<float>::quiet_NaN();
    rule.step(p, {1, 0.9, 1});
    EXPECT_TRUE(p.value[1].isnan().all().item<bool>());
    EXPECT_FALSE(p.value[0].isnan().any().item<bool>());
    EXPECT_FALSE(p.value[2].isnan().any().item<bool>());
}

TEST(NorMuon, ResultsDoNotDependOnTheNumberOfThreads) {
    const int threads = at::get_num_threads();
    std::vector<at::Tensor> values;
    for (const int count : {1, 2, 3}) {
        at::set_num_threads(count);
        Parameter p = parameter({7, 70, 33});
        at::Tensor v = at::zeros({7, 1, 33});
        ops::apply_matrix_update(at::ones({7, 70, 33}) * 0.3 + p.value, {}, v, p.value, {},
                                 {.lr = 0.03, .decay = 0.1, .moments = true, .beta2 = 0.9});
        values.push_back(p.value);
    }
    at::set_num_threads(threads);
    EXPECT_TRUE(values[0].equal(values[1]));
    EXPECT_TRUE(values[0].equal(values[2]));
}

}  // namespace
}  // namespace speedrun
