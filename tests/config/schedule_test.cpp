#include "config/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/load_config.h"
#include "util/error.h"

namespace speedrun {
namespace {

Config load_source(const std::string& file, const std::vector<std::string>& overrides = {}) {
    return load_config(std::string(SPEEDRUN_SOURCE_DIR) + "/" + file, overrides);
}

// The same formula as the reference's, in double precision too; compilers may fuse a multiply and an add (1
// ulp).
void expect_same(double value, double expected) {
    EXPECT_LE(std::abs(value - expected), 1e-15);
}

struct Row {
    int64_t step, window_short, window_long;
    double lr_scale, momentum;
};

// get_lr, get_ws (blocks) and get_muon_momentum of the reference at record 43.
const std::vector<Row> record_43_rows{{0, 1, 3, 1.0, 0.85},
                                      {1, 1, 3, 1.0, 0.8503333333333333},
                                      {100, 1, 3, 1.0, 0.8833333333333333},
                                      {299, 1, 3, 1.0, 0.9496666666666667},
                                      {300, 1, 3, 1.0, 0.95},
                                      {301, 1, 3, 1.0, 0.95},
                                      {734, 1, 3, 1.0, 0.95},
                                      {735, 3, 7, 1.0, 0.95},
                                      {736, 3, 7, 1.0, 0.95},
                                      {1102, 3, 7, 1.0, 0.95},
                                      {1103, 3, 7, 0.9995918367346939, 0.95},
                                      {1104, 3, 7, 0.9987755102040815, 0.95},
                                      {1469, 3, 7, 0.7008163265306122, 0.95},
                                      {1470, 5, 11, 0.7000000000000001, 0.95},
                                      {1471, 5, 11, 0.6991836734693878, 0.95},
                                      {1800, 5, 11, 0.43061224489795913, 0.95},
                                      {2194, 5, 11, 0.1089795918367347, 0.95},
                                      {2195, 5, 11, 0.1081632653061224, 0.95},
                                      {2196, 5, 11, 0.1073469387755103, 0.948},
                                      {2203, 5, 11, 0.1016326530612244, 0.9339999999999999},
                                      {2204, 5, 11, 0.1008163265306123, 0.9319999999999999},
                                      {2205, 6, 13, 0.10017999999999999, 0.9299999999999999},
                                      {2206, 6, 13, 0.10017999999999999, 0.9279999999999999},
                                      {2244, 6, 13, 0.10017999999999999, 0.852}};

TEST(Schedule, Record43) {
    const Config config = load_source("configs/record_43.json");
    for (const Row& row : record_43_rows) {
        SCOPED_TRACE(row.step);
        const StepSettings s = settings_at(config, row.step);
        EXPECT_EQ(s.step, row.step);
        expect_same(s.lr_scale, row.lr_scale);
        expect_same(s.muon_momentum, row.momentum);
        EXPECT_EQ(s.window_short, row.window_short * 128);
        EXPECT_EQ(s.window_long, row.window_long * 128);
        EXPECT_EQ(s.yarn_window, row.window_long);
        EXPECT_EQ(s.batch_tokens, 262144);
        EXPECT_EQ(s.max_seq_len, 2048);
        EXPECT_EQ(s.adam_steps, row.step % 2 == 1);
        EXPECT_TRUE(s.trains);
    }
}

TEST(Schedule, FinalValidationWidensTheLongWindowWithoutAYarnStep) {
    const StepSettings s = settings_at(load_source("configs/record_43.json"), 2245);
    EXPECT_EQ(s.window_short, 6 * 128);
    EXPECT_EQ(s.window_long, 20 * 128);
    EXPECT_EQ(s.yarn_window, 13);
    EXPECT_TRUE(s.validate);
    EXPECT_FALSE(s.trains);
    EXPECT_FALSE(s.adam_steps);  // 2245 is odd: the cadence alone would say yes
    expect_same(s.lr_scale, 0.10017999999999999);
    expect_same(s.muon_momentum, 0.85);
}

TEST(Schedule, ValidationStepsOfRecord43) {
    const Config config = load_source("configs/record_43.json");
    std::vector<int64_t> steps;
    for (int64_t step = 0; step <= 2245; ++step)
        if (settings_at(config, step).validate) steps.push_back(step);
    EXPECT_EQ(steps, (std::vector<int64_t>{0, 250, 500, 750, 1000, 1250, 1500, 1750, 2000, 2245}));
}

// The tiny golden run: the reference's code with 9 + 3 steps and blocks of 8 tokens.
TEST(Schedule, GoldenRun) {
    const Config config = load_source("tests/golden/golden_tiny.json");
    const std::vector<Row> rows{{0, 8, 24, 1.0, 0.85},
                                {1, 8, 24, 1.0, 0.875},
                                {2, 8, 24, 1.0, 0.8999999999999999},
                                {3, 24, 56, 1.0, 0.9249999999999999},
                                {4, 24, 56, 1.0, 0.95},
                                {5, 24, 56, 0.8999999999999999, 0.95},
                                {6, 40, 88, 0.7000000000000001, 0.95},
                                {7, 40, 88, 0.5, 0.95},
                                {8, 40, 88, 0.3000000000000001, 0.95},
                                {9, 48, 104, 0.10017999999999999, 0.95},
                                {10, 48, 104, 0.10017999999999999, 0.9166666666666666},
                                {11, 48, 104, 0.10017999999999999, 0.8833333333333333},
                                {12, 48, 160, 0.10017999999999999, 0.85}};
    for (const Row& row : rows) {
        SCOPED_TRACE(row.step);
        const StepSettings s = settings_at(config, row.step);
        expect_same(s.lr_scale, row.lr_scale);
        expect_same(s.muon_momentum, row.momentum);
        EXPECT_EQ(s.window_short, row.window_short);
        EXPECT_EQ(s.window_long, row.window_long);
        EXPECT_EQ(s.yarn_window, row.step < 3 ? 3 : row.step < 6 ? 7 : row.step < 9 ? 11 : 13);
        EXPECT_EQ(s.batch_tokens, 2048);
        EXPECT_EQ(s.max_seq_len, 128);
        EXPECT_EQ(s.adam_steps, row.step % 2 == 1);
        EXPECT_EQ(s.validate, row.step % 6 == 0);
        EXPECT_EQ(s.trains, row.step < 12);
    }
}

TEST(Schedule, StagesScaleTheLearningRateAndChooseTheBatch) {
    Config config = load_source("tests/golden/golden_tiny.json");
    config.schedule.lr.stages = {{0, 1}, {3, 0.5}};
    config.schedule.stages[1].batch_tokens = 4096;
    config.schedule.stages[1].max_seq_len = 64;
    EXPECT_EQ(settings_at(config, 2).lr_scale, 1);
    EXPECT_EQ(settings_at(config, 3).lr_scale, 0.5);
    EXPECT_EQ(settings_at(config, 3).batch_tokens, 4096);
    EXPECT_EQ(settings_at(config, 3).max_seq_len, 64);
    EXPECT_EQ(settings_at(config, 6).batch_tokens, 2048);
}

// Record 88's weights: constant, then falling to 0 at the stage's end, then none.
TEST(Schedule, ThePrefixWeightIsLinearInAStage) {
    const Config config =
        load_source("configs/record_82.json",
                    {"data.prefix_table=data/tokenizer",
                     R"(schedule.stages[0].prefix={"from": 0.25, "to": 0.25, "begin": 0, "end": 458})",
                     R"(schedule.stages[1].prefix={"from": 0.25, "to": 0, "begin": 458, "end": 917})",
                     R"(schedule.stages[2].prefix={"from": 0, "to": 0, "begin": 917, "end": 1375})"});
    ASSERT_EQ(config.schedule.stages[1].start, 458);
    ASSERT_EQ(config.schedule.stages[2].start, 917);
    for (int64_t step = 0; step <= config.schedule.total_steps(); ++step) {
        const auto weight = settings_at(config, step).prefix_weight;
        ASSERT_EQ(weight.has_value(), step < 917) << step;
        if (!weight) continue;
        const double share = step < 458 ? 0 : static_cast<double>(step - 458) / (917 - 458);
        ASSERT_NEAR(*weight, 0.25 * (1 - share), 1e-15) << step;
    }
    EXPECT_FALSE(settings_at(load_source("configs/record_82.json"), 0).prefix_weight);
}

// A weight that has come to 0 is one still, so that a stage's passes are of one kind.
TEST(Schedule, AnEndedPrefixWeightIsZero) {
    const Config config =
        load_source("configs/record_82.json",
                    {"data.prefix_table=data/tokenizer",
                     R"(schedule.stages[0].prefix={"from": 0.5, "to": 0, "begin": 10, "end": 12.5})"});
    EXPECT_EQ(settings_at(config, 9).prefix_weight, 0.5);
    EXPECT_NEAR(*settings_at(config, 12).prefix_weight, 0.1, 1e-15);
    EXPECT_EQ(settings_at(config, 13).prefix_weight, 0.0);
    EXPECT_EQ(settings_at(config, 457).prefix_weight, 0.0);
    EXPECT_EQ(settings_at(config, 458).prefix_weight, std::nullopt);
}

TEST(Schedule, CadencesAndEmptyPhases) {
    Config config = load_source("tests/golden/golden_tiny.json");
    config.optimizer.adam.every_n_steps = 3;
    config.schedule.eval.every = 0;
    config.schedule.lr.cooldown_frac = 0;
    config.optimizer.matrix.momentum.warmup_steps = 0;
    config.optimizer.matrix.momentum.cooldown_steps = 0;
    for (int64_t step = 0; step <= 12; ++step) {
        const StepSettings s = settings_at(config, step);
        EXPECT_EQ(s.adam_steps, step < 12 && step % 3 == 2);
        EXPECT_EQ(s.validate, step == 12);
        EXPECT_EQ(s.lr_scale, 1);
        EXPECT_EQ(s.muon_momentum, 0.95);
    }
}

TEST(Schedule, StepsOutsideTheRunAreABug) {
    const Config config = load_source("tests/golden/golden_tiny.json");
    EXPECT_THROW(settings_at(config, -1), InternalError);
    EXPECT_THROW(settings_at(config, 13), InternalError);
}

}  // namespace
}  // namespace speedrun
