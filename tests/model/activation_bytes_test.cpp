// On the meta device, where tensors have shapes but no memory, a model tells what its activations need, and
// no pass then needs more.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "model/gpt.h"
#include "model/initialize.h"
#include "model/load_config.h"

namespace speedrun {
namespace {

Batch any_batch(int64_t tokens) {
    Batch batch;
    batch.inputs.assign(static_cast<size_t>(tokens), 1);
    batch.targets.assign(static_cast<size_t>(tokens), 2);
    batch.cu_seqlens = {0, static_cast<int32_t>(tokens)};
    return batch;
}

int64_t after_passes(GPT& model, int64_t train_tokens, int64_t val_tokens) {
    StepSettings settings;
    settings.window_short = 24;
    settings.window_long = 56;
    settings.yarn_window = 7;
    settings.max_seq_len = train_tokens;
    model.evaluate(any_batch(val_tokens), settings);
    model.forward_backward(any_batch(train_tokens), settings, 1);
    return model.activation_bytes();
}

TEST(ActivationBytes, WhatTheMetaDeviceCountsIsEnough) {
    for (const char* activations : {"numerics.activations=fp32", "numerics.activations=bf16"})
        for (const auto& [train, val] : {std::pair{256, 512}, {256, 256}, {64, 256}}) {
            const std::vector<std::string> overrides{activations};
            const Config config =
                load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json", overrides);
            GPT real(config, 512, at::kCPU), counted(config, 512, at::kMeta);
            initialize(real.parameters(), config.model, 1);
            const int64_t needed = after_passes(counted, train, val);
            real.reserve_activations(needed);
            EXPECT_EQ(after_passes(real, train, val), needed) << activations << " " << train << " " << val;
        }
}

}  // namespace
}  // namespace speedrun
