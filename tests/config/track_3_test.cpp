// Track 3's config: its schedule step by step, and mistakes in the keys that it brought.
#include <gtest/gtest.h>

#include "config/schedule.h"
#include "config_testing.h"

namespace speedrun {
namespace {

const std::filesystem::path track_3 = source_folder / "configs/track_3.json";

// set_hparams and the validation rule of train_gpt_simple.py.
TEST(Track3, ScheduleIsThatOfTheReference) {
    const Config config = load(track_3);
    constexpr int64_t train_steps = 3250;
    ASSERT_EQ(config.schedule.total_steps(), train_steps);
    int64_t validations = 0;
    for (int64_t step = 0; step <= train_steps; ++step) {
        const StepSettings settings = settings_at(config, step);
        const double progress = static_cast<double>(step) / train_steps;
        const int64_t every = progress < 0.9 ? 125 : 25;
        EXPECT_EQ(settings.validate, step == train_steps || step % every == 0) << step;
        validations += settings.validate ? 1 : 0;
        if (step == train_steps) break;
        EXPECT_NEAR(settings.lr_scale, progress < 1 - 0.7 ? 1.0 : (1 - progress) / 0.7, 1e-12) << step;
        EXPECT_EQ(settings.muon_momentum, 0.95);
        EXPECT_TRUE(settings.adam_steps);
    }
    EXPECT_EQ(validations, 24 + 14);  // 0, 125, ..., 2875 and 2925, 2950, ..., 3250
}

TEST(Track3, LearningRatesAreThoseOfTheReference) {
    const Config config = load(track_3);
    for (const OptimParamConfig& row : config.optimizer.params) {
        if (row.rule != OptimParamConfig::Rule::adam) continue;
        const double lr = row.param == "embed" ? 0.7 : row.param == "head" ? 0.004 : 0.015;
        EXPECT_NEAR(config.optimizer.adam.lr * row.lr_mul, lr, 1e-15) << row.param;
    }
    EXPECT_EQ(config.optimizer.matrix.lr, 0.025);
    EXPECT_EQ(config.optimizer.matrix.weight_decay, 0.05);
}

TEST(Track3, WhatItResolvesToIsAConfig) {
    const ConfigFiles files;
    const Config config = load(track_3);
    EXPECT_EQ(load(files.write("resolved.json", config.resolved_json)).resolved_json, config.resolved_json);
    const ParamConfig& q = config.model.param("attn_q");
    ASSERT_EQ(q.layers.size(), 12U);  // "all"
    EXPECT_EQ(q.layers.back(), 11);
    EXPECT_NEAR(q.init.front().value, std::sqrt(0.33 / 768), 1e-15);
}

struct Mistake {
    Overrides overrides;
    std::vector<std::string> parts;
};

const std::vector<Mistake> mistakes{
    {{"data.sequence_tokens=512"},
     {"schedule.stages[0].max_seq_len", "is not the length of a sequence", "data.sequence_tokens = 512"}},
    {{"data.sequence_tokens=1000"},
     {"data.val_micro_batch_tokens", "is no multiple of data.sequence_tokens", "65536"}},
    {{"data.rows=3"},
     {"schedule.stages[0].batch_tokens", "is no multiple of data.rows times data.sequence_tokens", "3072"}},
    {{"model.layer_defaults.attn.kind=paired"},
     {"model.layer_defaults.attn.kind", "paired heads do not know sequences"}},
    {{"numerics.lm_head.format=fp8"},
     {"model.output.head_bias", "a head in 8-bit floats has no bias", "\"head_bias\""}},
    {{"model.output.head_bias=norm_in"}, {"model.output.head_bias", "norm_in", "[768]", "[50304]"}},
    {{"model.output.softcap.form=tanh"}, {"model.output.softcap.form", "\"tanh\"", "rsqrt"}},
    {{"model.input.norm_gain=embed"}, {"model.input.norm_gain", "embed", "[768]"}},
    {{"model.layer_defaults.mlp.fc_bias=proj_bias"}, {"mlp.fc_bias", "proj_bias", "[3072]"}},
    {{"model.layer_defaults.attn.q_bias=null"},
     {"model.params.q_bias", "nothing in the model uses this parameter"}},
    {{"model.params.attn_q.layers=every"}, {"model.params.attn_q.layers", "\"every\"", "all"}},
    {{"model.params.attn_q.init={\"normal_per_sqrt\":1}"},
     {"model.params.attn_q.init.normal_per_sqrt", "no initialiser", "normal_per_sqrt_dim"}},
    {{"schedule.eval.late_from=2"}, {"schedule.eval.late_from", "2", "1"}},
    {{"schedule.extension_steps=-3250"}, {"schedule.extension_steps", "no step is left", "-3249"}},
    {{"optimizer.lookahead={\"beta\":0.3,\"from\":300,\"until\":300}"},
     {"optimizer.lookahead.until", "no step in between", "more than from = 300"}},
    {{"optimizer.tail_ema={\"tau\":9,\"weight\":0.5,\"from\":8,\"until\":9,\"without\":[\"embd\"]}"},
     {"optimizer.tail_ema.without[0]", "no such parameter", "embed"}},
    {{"schedule.matrix_lr={\"cooldown_frac\":0.5,\"cooldown_start\":9,\"floor\":0}"},
     {"schedule.matrix_lr.cooldown_start", "cooldown_frac says where"}},
};

TEST(Track3, MistakesAreSaidWhereTheyStand) {
    for (const Mistake& mistake : mistakes) expect_refused(track_3, mistake.overrides, mistake.parts);
}

// A lookahead and an average would lose track of values that rest, or of which the optimizer keeps more bits.
TEST(Track3, WhatSurroundsRulesIsRefusedWhereValuesRestOrHaveMoreBits) {
    const std::string ahead = R"(optimizer.lookahead={"beta":0.3,"from":3,"until":9})",
                      tail = R"(optimizer.tail_ema={"tau":5,"weight":0.5,"from":3,"until":9})";
    const auto record = [](int number) {
        return source_folder / ("configs/record_" + std::to_string(number) + ".json");
    };
    for (const std::string& key : {ahead, tail}) {
        const std::string path = key.substr(0, key.find('='));
        expect_refused(record(43), {key}, {"optimizer.adam.every_n_steps", path + " follows every step"});
        expect_refused(record(53), {key, "optimizer.adam.every_n_steps=1"}, {path, "parameters rest"});
        expect_refused(track_3,
                       {key, "model.params.attn_q.dtype=bf16", "model.params.attn_q.master=bf16+u16"},
                       {"model.params.attn_q.master", path + " follows values"});
    }
}

}  // namespace
}  // namespace speedrun
