// Records 44 to 89 against the schedules that their train_gpt.py compute, step by step.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "config/schedule.h"
#include "config_testing.h"

namespace speedrun {
namespace {

// What get_lr, get_bs and get_ws of a record depend on.
struct Record {
    int64_t number, scheduled_steps;
    double cooldown_frac, first_threshold, second_threshold, second_mul, third_mul;
};

constexpr double third = 1.0 / 3, two_thirds = 2.0 / 3;
constexpr Record records[] = {
    {46, 2120, 0.55, 0.33, 0.66, 1.51, 1.93},        {47, 2120, 0.55, 0.33, 0.66, 1.51, 1.93},
    {48, 2120, 0.55, 0.33, 0.66, 1.51, 1.93},        {49, 2070, 0.55, third, two_thirds, 1.51, 1.93},
    {50, 2050, 0.55, third, two_thirds, 1.51, 1.93}, {51, 1995, 0.55, third, two_thirds, 1.51, 1.93},
    {52, 1960, 0.55, third, two_thirds, 1.51, 1.93}, {53, 1880, 0.55, third, two_thirds, 1.52, 1.73},
    {54, 1840, 0.50, third, two_thirds, 1.52, 1.73}, {55, 1805, 0.50, third, two_thirds, 1.52, 1.73},
    {56, 1785, 0.50, third, two_thirds, 1.52, 1.73}, {57, 1800, 0.50, third, two_thirds, 1.52, 1.73},
    {58, 1735, 0.50, third, two_thirds, 1.52, 1.73}, {59, 1735, 0.50, third, two_thirds, 1.52, 1.73},
    {60, 1735, 0.50, third, two_thirds, 1.52, 1.73}, {61, 1725, 0.50, third, two_thirds, 1.52, 1.73},
    {62, 1560, 0.55, third, two_thirds, 1.52, 1.73}, {63, 1535, 0.55, third, two_thirds, 1.52, 1.73},
    {64, 1515, 0.55, third, two_thirds, 1.52, 1.73}};

std::filesystem::path file_of(int64_t record) {
    return source_folder / ("configs/record_" + std::to_string(record) + ".json");
}

double reference_lr(const Record& record, int64_t step) {
    if (step > record.scheduled_steps) return 0.1;
    const double x = static_cast<double>(step) / static_cast<double>(record.scheduled_steps);
    const double mul = x > record.second_threshold  ? record.third_mul
                       : x > record.first_threshold ? record.second_mul
                                                    : 1;
    if (x < 1 - record.cooldown_frac) return mul;
    const double w = (1 - x) / record.cooldown_frac;
    return mul * w + (1 - w) * 0.1;
}

std::vector<double> reference_mtp(const Record& record, int64_t step) {
    const double x = static_cast<double>(step) / static_cast<double>(record.scheduled_steps);
    if (record.number < 53) return {1};
    if (x < third) return {1, 0.5, 0.25 * (1 - 3 * x)};
    if (x < two_thirds) return {1, 0.5 * (1 - (3 * x - 1))};
    return {1};
}

void expect_step(const Record& record, const StepSettings& settings) {
    const int64_t step = settings.step;
    const double x = static_cast<double>(step) / static_cast<double>(record.scheduled_steps);
    const auto stage = step >= record.scheduled_steps ? size_t{3} : static_cast<size_t>(3 * x);
    constexpr int64_t batches[] = {131072, 262144, 393216, 393216}, windows[] = {3, 7, 11, 13};
    ASSERT_EQ(settings.batch_tokens, batches[stage]) << step;
    ASSERT_EQ(settings.window_long, 128 * windows[stage]) << step;
    ASSERT_EQ(settings.window_short, 128 * (windows[stage] / 2)) << step;
    ASSERT_NEAR(settings.lr_scale, reference_lr(record, step), 1e-12) << step;
    const auto weights = reference_mtp(record, step);
    ASSERT_EQ(settings.mtp_weights.size(), weights.size()) << step;
    for (size_t k = 0; k < weights.size(); ++k)
        ASSERT_NEAR(settings.mtp_weights[k], weights[k], 1e-12) << step;
}

TEST(Ladder, SchedulesAreThoseOfTheReference) {
    for (const Record& record : records) {
        SCOPED_TRACE(record.number);
        const Config config = load(file_of(record.number));
        ASSERT_EQ(config.record, record.number);
        ASSERT_EQ(config.schedule.scheduled_steps, record.scheduled_steps);
        ASSERT_EQ(config.schedule.extension_steps, 40);
        for (int64_t step = 0; step < config.schedule.total_steps(); ++step)
            expect_step(record, settings_at(config, step));
    }
}

// Record 53 copies after the last odd step before ceil(2 N / 3); later ones after that step | 1.
TEST(Ladder, TablesPartWhereTheReferenceParts) {
    for (const Record& record : records) {
        SCOPED_TRACE(record.number);
        const Config config = load(file_of(record.number));
        if (record.number < 53) {
            EXPECT_EQ(config.schedule.untie_after_step, -1);
            continue;
        }
        const auto split =
            static_cast<int64_t>(std::ceil(2.0 / 3 * static_cast<double>(record.scheduled_steps)));
        const int64_t last = record.number == 53 ? (split - 2) | 1 : split | 1;
        EXPECT_EQ(config.schedule.untie_after_step, last);
        EXPECT_TRUE(settings_at(config, last).tied && settings_at(config, last).unties);
        EXPECT_FALSE(settings_at(config, last + 1).tied);
    }
}

// A checkpoint has the resolved config, and a run goes on from it.
TEST(Ladder, WhatARecordResolvesToIsAConfig) {
    const ConfigFiles files;
    for (int64_t number = 43; number <= 89; ++number) {
        SCOPED_TRACE(number);
        const Config config = load(file_of(number));
        EXPECT_EQ(load(files.write("resolved.json", config.resolved_json)).resolved_json,
                  config.resolved_json);
    }
}

TEST(Ladder, DynamicCompositionResolvesToItself) {
    const ConfigFiles files;
    const Config config =
        load(file_of(82), {R"(model.layers[10].attn.dc={"window":112,"w1":"m0[0:6]","w2":"m0[6:12]"})"});
    const auto& composed = config.model.layers[10].attn->dc;
    ASSERT_TRUE(composed);
    EXPECT_EQ(composed->window, 112);
    EXPECT_EQ(text_of(*composed->w1, config), "m0[0:6]");
    EXPECT_EQ(text_of(*composed->w2, config), "m0[6:12]");
    EXPECT_FALSE(config.model.layers[8].attn->dc);
    EXPECT_EQ(load(files.write("resolved.json", config.resolved_json)).resolved_json, config.resolved_json);
}

// From record 65 on (TrainingSchedule), stages are rounded thirds and set everything at once.
struct StagedRecord {
    int64_t number, scheduled_steps;
    double cooldown_frac, floor;
    int64_t first_max_seq_len, extension_steps = 40;
};

constexpr StagedRecord staged_records[] = {
    {65, 1515, 0.55, 0.1, 2048},    {66, 1515, 0.55, 0.1, 2048},    {67, 1515, 0.55, 0.1, 2048},
    {68, 1515, 0.55, 0.1, 2048},    {69, 1515, 0.55, 0.1, 2048},    {70, 1507, 0.55, 0.1, 2048},
    {71, 1507, 0.55, 0.1, 2048},    {72, 1490, 0.55, 0.15, 896},    {73, 1450, 0.6, 0.15, 896},
    {74, 1450, 0.6, 0.15, 896},     {75, 1450, 0.6, 0.15, 896},     {76, 1450, 0.6, 0.15, 896},
    {77, 1450, 0.6, 0.15, 896},     {78, 1450, 0.6, 0.15, 896},     {79, 1450, 0.6, 0.15, 896},
    {80, 1440, 0.6, 0.15, 896},     {81, 1405, 0.6, 0.15, 896, 10}, {82, 1375, 0.6, 0.15, 896, 10},
    {83, 1375, 0.6, 0.15, 896, 10}, {84, 1380, 0.6, 0.15, 896, 10}, {85, 1285, 0.6, 0.15, 896, 15},
    {86, 1285, 0.6, 0.15, 896, 15}, {87, 1285, 0.6, 0.15, 896, 15}, {88, 1270, 0.6, 0.15, 896, 15},
    {89, 1270, 0.6, 0.15, 896, 15}};

void expect_staged_step(const StagedRecord& record, const StepSettings& settings) {
    const int64_t step = settings.step, n = record.scheduled_steps;
    const int64_t starts[] = {0, std::lround(static_cast<double>(n) / 3),
                              std::lround(2.0 * static_cast<double>(n) / 3), n, n + record.extension_steps};
    const auto stage =
        static_cast<size_t>(std::ranges::count_if(starts, [&](int64_t s) { return s <= step; }) - 1);
    constexpr int64_t batches[] = {131072, 262144, 393216, 393216}, windows[] = {3, 7, 11, 13};
    constexpr double muls[] = {1, 1.52, 1.73, 1};
    ASSERT_EQ(settings.batch_tokens, batches[stage]) << step;
    ASSERT_EQ(settings.window_long, 128 * windows[stage]) << step;
    ASSERT_EQ(settings.window_short, 128 * (windows[stage] / 2)) << step;
    ASSERT_EQ(settings.max_seq_len, stage == 0 ? record.first_max_seq_len : 2048) << step;
    const auto cooldown = static_cast<int64_t>(static_cast<double>(n) * (1 - record.cooldown_frac));
    const double t =
        std::clamp(static_cast<double>(step - cooldown) / static_cast<double>(n - cooldown), 0.0, 1.0);
    ASSERT_NEAR(settings.lr_scale, muls[stage] * (1 - t) + record.floor * t, 1e-12) << step;
    const double share =
        static_cast<double>(step - starts[stage]) / static_cast<double>(starts[stage + 1] - starts[stage]);
    const std::vector<double> weights[] = {{1, 0.5, 0.25 * (1 - share)}, {1, 0.5 * (1 - share)}, {1}, {1}};
    ASSERT_EQ(settings.mtp_weights.size(), weights[stage].size()) << step;
    for (size_t k = 0; k < weights[stage].size(); ++k)
        ASSERT_NEAR(settings.mtp_weights[k], weights[stage][k], 1e-12) << step;
    const double prefix = record.number < 88 || stage > 1 ? 0 : stage == 0 ? 0.25 : 0.25 * (1 - share);
    ASSERT_NEAR(settings.prefix_weight.value_or(0), prefix, 1e-12) << step;
    ASSERT_EQ(settings.tied, step <= (starts[2] | 1)) << step;
}

TEST(Ladder, StagesAreThoseOfTheReference) {
    for (const StagedRecord& record : staged_records) {
        SCOPED_TRACE(record.number);
        const Config config = load(file_of(record.number));
        ASSERT_EQ(config.record, record.number);
        ASSERT_EQ(config.schedule.scheduled_steps, record.scheduled_steps);
        ASSERT_EQ(config.schedule.extension_steps, record.extension_steps);
        for (int64_t step = 0; step < config.schedule.total_steps(); ++step)
            expect_staged_step(record, settings_at(config, step));
    }
}

TEST(Ladder, ScalarsRestAfterTransitions) {
    const Config config = load(file_of(53));
    std::set<int64_t> frozen;
    for (int64_t step = 0; step < config.schedule.total_steps(); ++step)
        if (std::ranges::count(settings_at(config, step).resting, "scalars") > 0) frozen.insert(step);
    std::set<int64_t> expected;
    for (const int64_t start : {627, 1254, 1880})
        for (int64_t step = start; step < start + 40; ++step) expected.insert(step);
    EXPECT_EQ(frozen, expected);
    EXPECT_TRUE(settings_at(load(file_of(54)), 620).resting == std::vector<std::string>{"embed"});
}

TEST(Ladder, ARecordIsWhatItChanged) {
    for (int64_t number = 44; number <= 89; ++number) {
        std::ifstream in(file_of(number));
        std::string line;
        int64_t lines = 0;
        while (std::getline(in, line)) ++lines;
        EXPECT_LE(lines, 40) << number;
        const Config config = load(file_of(number));
        EXPECT_EQ(config.record, number);
    }
    EXPECT_EQ(config_diff(load(file_of(46)), load(file_of(47))), "record: 46 -> 47\n");
    const std::string diff = config_diff(load(file_of(53)), load(file_of(54)));
    for (const char* changed :
         {"model.output.softcap.a: 30.0 -> 23.0", "schedule.lr.cooldown_frac: 0.55 -> 0.5",
          "schedule.freeze.steps: 40 -> 0", "schedule.untie_after_step: 1253 -> 1227"})
        EXPECT_NE(diff.find(changed), std::string::npos) << diff;
    EXPECT_EQ(diff.find("optimizer"), std::string::npos) << diff;
    EXPECT_EQ(config_diff(load(file_of(78)), load(file_of(79))),
              "objective.mtp_tail: \"drop\" -> \"keep_normaliser\"\nrecord: 78 -> 79\n");
    EXPECT_EQ(config_diff(load(file_of(85)), load(file_of(86))), "record: 85 -> 86\n");
}

TEST(Ladder, MistakesInItsKeysAreNamed) {
    const std::filesystem::path record_53 = file_of(53);
    const auto expect_mistake = [&](const std::string& setting, std::initializer_list<std::string> texts) {
        expect_user_error([&] { load(record_53, {setting}); }, texts);
    };
    expect_mistake("schedule.untie_after_step=-1", {"schedule.untie_after_step", "would never be used"});
    expect_mistake("model.input.tied_to=embed", {"model.input.tied_to", "itself"});
    expect_mistake("model.input.tied_to=value_embeds", {"model.input.tied_to"});
    expect_mistake("schedule.freeze.params=[\"attn_qkvo\"]", {"schedule.freeze.params[0]", "not adam's"});
    expect_mistake("schedule.freeze.params=[\"scalar\"]", {"schedule.freeze.params[0]", "scalars"});
    expect_mistake("schedule.stages[0].mtp.to=[1,0.5]", {"schedule.stages[0].mtp.to", "2", "3"});
    expect_mistake("schedule.stages[0].mtp.from=[0,0.5,0.25]", {"schedule.stages[0].mtp.from", "no weight"});
    expect_mistake("schedule.stages[0].mtp.end=-1", {"schedule.stages[0].mtp.end"});
    expect_mistake("schedule.lr.stages[1].start=0", {"schedule.lr.stages[1].start", "ascend"});
    expect_mistake("schedule.lr.stages[0].start=3", {"schedule.lr.stages[0].start", "step 0"});
    expect_mistake("model.layers[2].attn.key_offset=[{\"channels\":[0,8]}]", {"key_offset", "channels"});
    expect_mistake("model.layers[2].attn.key_offset=[{\"channels\":[8,200]}]",
                   {"key_offset[0].channels", "128"});
    expect_mistake("model.params.mlp_fc.master=bf16+u16", {"model.params.mlp_fc.master", "bf16"});
    expect_mistake("optimizer.params.mlp_fc.per_matrix_lr_mul=[1,2]", {"per_matrix_lr_mul", "entry"});
    expect_user_error([&] { load(file_of(58), {"model.layers[0].attn.key_offset=[{\"channels\":[8,16]}]"}); },
                      {"key_offset", "paired"});
    expect_user_error([&] { load(file_of(62), {"model.input.bigram.table=bigram"}); },
                      {"model.input.bigram.table", "bigram_embed"});
    expect_user_error(
        [&] { load(file_of(50), {"model.params.mlp_fc.shape=[12,\"mlp_hidden\",\"d_model\"]"}); },
        {"model.params.mlp_fc.shape", "entries"});
}

}  // namespace
}  // namespace speedrun
