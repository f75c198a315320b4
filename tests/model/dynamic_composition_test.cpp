// Dynamic composition in a model: where it stands, and that gradients go through it. Record 82's last layer,
// with outputs of its net as weights.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/gpt.h"
#include "model/initialize.h"
#include "model/load_config.h"

namespace speedrun {
namespace {

constexpr int64_t tokens = 96;

Config composed_config(const std::vector<std::string>& more = {}) {
    std::vector<std::string> overrides{
        R"(model.layers[10].attn.dc={"window": 20, "w1": "m0[0:6]", "w2": "m0[8:14]"})"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/record_82_tiny.json", overrides);
}

Batch two_documents() {
    Batch batch;
    for (int32_t t = 0; t < tokens; ++t) {
        batch.inputs.push_back(t * 37 % 500);
        batch.targets.push_back((t + 1) * 37 % 500);
    }
    batch.cu_seqlens = {0, 41, tokens, tokens};
    return batch;
}

StepSettings short_windows() {
    StepSettings settings;
    settings.window_short = 8;
    settings.window_long = 24;
    settings.yarn_window = 3;
    settings.max_seq_len = tokens;
    settings.mtp_weights = {1};
    return settings;
}

// Nothing is zero, so that every part has a gradient.
void randomise(GPT& model, const Config& config) {
    initialize(model.parameters(), config.model, 1);
    at::manual_seed(3);
    for (Parameter& parameter : model.parameters().all()) {
        const double spread = parameter.value.dim() > 1 ? 0.05 : 0.01;
        parameter.value.add_(at::randn_like(parameter.value), spread);
    }
    model.parameters().refresh();
}

TEST(DynamicCompositionNode, ComesAfterAttentionAndBeforeXsa) {
    const Config config = composed_config();
    const GPT model(config, tokens, at::kMeta);
    std::vector<std::string> kinds;
    for (const auto& node : model.graph().nodes())
        if (node->name().starts_with("model.layers[10].attn")) kinds.emplace_back(node->kind());
    const auto composed = std::ranges::find(kinds, "dynamic_composition");
    ASSERT_NE(composed, kinds.end());
    EXPECT_EQ(*(composed - 1), "attention");
    EXPECT_EQ(*(composed + 1), "xsa");
}

// Along a direction of one parameter at a time, whose parts all meet in the composed layer: its queries,
// keys, values and weights.
TEST(DynamicCompositionNode, GradientsAreTheDifferencesOfTheLoss) {
    const Config config = composed_config();
    GPT model(config, tokens, at::kCPU);
    randomise(model, config);
    const Batch batch = two_documents();
    const StepSettings settings = short_windows();
    model.parameters().zero_grad();
    model.forward_backward(batch, settings, 1);
    for (const char* name : {"qk_bank", "vo_bank", "mudd_w1", "mudd_w2", "mudd_b2", "value_embeds"}) {
        Parameter& parameter = model.parameters()[name];
        const at::Tensor start = parameter.value.clone(), gradient = parameter.grad.to(at::kDouble);
        // Half of it random, so that errors across the gradient show too.
        const at::Tensor direction =
            gradient / gradient.norm() + at::randn_like(gradient) / std::sqrt(gradient.numel());
        const auto loss_at = [&](double step) {
            parameter.value.copy_(start + step * direction);
            model.parameters().refresh();
            return model.evaluate(batch, settings).item<double>() * tokens;
        };
        const double wanted = (gradient * direction).sum().item<double>();
        const double step = 0.2 / std::abs(wanted);
        const double near = (loss_at(step) - loss_at(-step)) / (2 * step),
                     far = (loss_at(2 * step) - loss_at(-2 * step)) / (4 * step);
        parameter.value.copy_(start);
        const double found = (4 * near - far) / 3;  // without the error of second order
        // fp32 losses: 9e-5 was measured for the net's biases, 1e-5 for the others.
        EXPECT_NEAR(found / wanted, 1, 3e-4) << name;
    }
}

TEST(DynamicCompositionNode, WhatTheMetaDeviceCountsIsEnough) {
    for (const char* activations : {"numerics.activations=fp32", "numerics.activations=bf16"}) {
        const Config config = composed_config({activations});
        GPT real(config, tokens, at::kCPU), counted(config, tokens, at::kMeta);
        randomise(real, config);
        const auto after_passes = [](GPT& model) {
            model.evaluate(two_documents(), short_windows());
            model.forward_backward(two_documents(), short_windows(), 1);
            return model.activation_bytes();
        };
        const int64_t needed = after_passes(counted);
        real.reserve_activations(needed);
        EXPECT_EQ(after_passes(real), needed) << activations;
    }
}

}  // namespace
}  // namespace speedrun
