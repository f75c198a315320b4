// The element rules of track 3's results against the published programs in fp64.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "optim/adam.h"
#include "track3.h"

namespace speedrun {
namespace {

using track3_golden::Json;

// Twenty steps of a case, its gradients those of the parameter of its name.
void expect_steps(const AdamConfig& config, const OptimParamConfig& row, const std::string& name,
                  const Json& want) {
    SCOPED_TRACE(name);
    const auto shape = want["shape"].get<std::vector<int64_t>>();
    const at::Tensor value = track3_golden::drawn("p." + name, shape, 0.1).to(at::kFloat);
    Parameter part{{}, value, at::zeros_like(value), value};
    Adam rule(config, row, part);
    for (int64_t k = 0; k < 20; ++k) {
        part.grad.copy_(track3_golden::gradient(name, shape, k));
        rule.step(part,
                  {.lr_scale = want["lr"][static_cast<size_t>(k)].get<double>() / config.lr, .t = k + 1});
        if (const std::string shown = std::to_string(k + 1); want.contains(shown))
            track3_golden::expect_figures(part.value, want[shown], std::string("after ").append(shown));
    }
}

TEST(Track3Adam, WithoutBiasCorrection) {
    const Json& golden = track3_golden::file()["adam"]["r46f"];
    const AdamConfig config{.lr = 0.01, .beta1 = 0.8, .eps = 1e-10};
    for (const auto& [name, want] : golden["cases"].items()) {
        OptimParamConfig row;
        row.bias_correction = false;
        row.betas = {0.8, golden["beta2"][name.substr(name.find('.') + 1)].get<double>()};
        expect_steps(config, row, name.substr(0, name.find('.')), want);
    }
}

TEST(Track3Adam, OfTheBaseline) {
    AdamConfig config{.beta1 = 0.8, .beta2 = 0.95, .eps = 1e-10, .weight_decay = 0.001};
    config.eps_form = AdamConfig::EpsForm::corrected;
    for (const auto& [name, want] : track3_golden::file()["adam"]["head"]["cases"].items()) {
        config.lr = want["lr"][0];
        expect_steps(config, {}, name.substr(name.find('.') + 1), want);
    }
}

// With gradients as small as eps the first step is lr / 2, not lr / (1 + 1 / sqrt(1 - beta2)).
TEST(Track3Adam, EpsBesideTheCorrectedRoot) {
    AdamConfig config{.lr = 1, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-4};
    config.eps_form = AdamConfig::EpsForm::corrected;
    Parameter part{{}, at::zeros({8}), at::full({8}, 1e-4), {}};
    part.used = part.value;
    Adam rule(config, {}, part);
    rule.step(part, {});
    EXPECT_LT((part.value + 0.5).abs().max().item<double>(), 1e-6);
}

// The baseline keeps its embedding, and Adam's state for that, in bf16, and its head in fp32.
TEST(Track3Adam, StateOfTheParametersOwnDtype) {
    AdamConfig config;
    config.state_dtype = AdamConfig::StateDtype::parameter;
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        const at::Tensor table = at::zeros({4, 8}, dtype), vector = at::zeros({8}, dtype);
        EXPECT_EQ(Adam(config, {}, {{}, table, table, table}).state()[0].tensor.scalar_type(), dtype);
        EXPECT_EQ(Adam(config, {}, {{}, vector, vector, vector}).state()[0].tensor.scalar_type(), at::kFloat);
    }
}

}  // namespace
}  // namespace speedrun
