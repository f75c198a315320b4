// What surrounds rules: a lookahead, and an average of the last weights.
#include <gtest/gtest.h>

#include <algorithm>

#include "small_run.h"

namespace speedrun {
namespace {

at::Tensor part_of_state(const Optimizer& optimizer, const std::string& name) {
    const std::vector<NamedTensor> state = optimizer.state();
    const auto found = std::ranges::find(state, name, &NamedTensor::name);
    return found == state.end() ? at::Tensor() : found->tensor;
}

StepSettings step_at(int64_t step) {
    StepSettings settings;
    settings.step = step;
    settings.muon_momentum = 0.9;
    settings.adam_steps = true;
    return settings;
}

// One rounding of fp32, of what lies below 4.
constexpr double rounding = 4 * 0x1p-23;

void expect_near(const at::Tensor& found, const at::Tensor& expected) {
    EXPECT_LE((found - expected).abs().max().item<double>(), rounding);
}

class LookaheadTest : public ::testing::Test {
  protected:
    LookaheadTest() : run_(config()), scalars_(run_.table["scalars"].value) {}

    static Config config() {
        Config config = small_run();
        config.optimizer.lookahead = LookaheadConfig{.beta = 0.5, .ema = 0.75, .from = 0, .until = 9};
        return config;
    }
    void run_ahead(int64_t step) {
        StepSettings settings = step_at(step);
        settings.lookahead = 0.5;
        run_.optimizer.run_ahead(settings);
    }
    // Returns the values after it.
    at::Tensor step(int64_t step) {
        run_.add_gradients(static_cast<uint64_t>(step));
        run_.optimizer.step(step_at(step));
        return scalars_.clone();
    }

    SmallRun run_;
    at::Tensor scalars_;  // fp32
};

TEST_F(LookaheadTest, RunsAheadByTheAverageOfWholeSteps) {
    const at::Tensor first = scalars_.clone();
    run_ahead(0);
    EXPECT_TRUE(scalars_.equal(first));  // there is no average yet
    const at::Tensor second = step(0), average = 0.25 * (second - first);
    run_ahead(1);
    expect_near(scalars_, second + 0.5 * average);
    const at::Tensor third = step(1);
    expect_near(part_of_state(run_.optimizer, "scalars.average_step"), average.lerp(third - second, 0.25));
}

TEST_F(LookaheadTest, TurnsBackWhereAStepIsSkipped) {
    run_ahead(0);
    step(0);
    std::vector<at::Tensor> before;
    for (const Parameter& parameter : run_.table.all()) before.push_back(parameter.used.clone());
    const at::Tensor kept = scalars_.clone();
    run_ahead(1);
    EXPECT_FALSE(scalars_.equal(kept));
    run_.add_gradients(1);
    run_.optimizer.skip();
    for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(run_.table.all()[i].used.equal(before[i])) << i;
}

TEST(TailEma, ValidationsReadABlendAndLeaveTheValues) {
    Config config = small_run();
    config.optimizer.tail_ema =
        TailEmaConfig{.tau = 4, .weight = 0.5, .from = 1, .until = 9, .without = {"embed"}};
    SmallRun run(config);
    std::vector<at::Tensor> after;
    for (int64_t i = 0; i < 2; ++i) {
        StepSettings settings = step_at(i);
        settings.averages = true;
        settings.restarts_average = i == 0;
        run.add_gradients(static_cast<uint64_t>(i));
        run.optimizer.step(settings);
        after.push_back(run.table["scalars"].value.clone());
    }
    const at::Tensor average = after[0] + (after[1] - after[0]) / 4;
    expect_near(part_of_state(run.optimizer, "scalars.tail_ema"), average);
    EXPECT_FALSE(part_of_state(run.optimizer, "embed.tail_ema").defined());

    std::vector<at::Tensor> before;
    for (const Parameter& parameter : run.table.all()) before.push_back(parameter.used.clone());
    run.optimizer.read_average(0.5);
    expect_near(run.table["scalars"].used, after[1].lerp(average, 0.5));
    run.optimizer.restore_values();
    for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(run.table.all()[i].used.equal(before[i])) << i;
}

}  // namespace
}  // namespace speedrun
