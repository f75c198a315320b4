#include "record/judge/comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "support/expect_error.h"

namespace speedrun {
namespace {

RunGroup group_of(int64_t steps, const std::vector<double>& times, int64_t first_start = -1,
                  int64_t every = 600) {
    RunGroup group;
    group.path = "runs";
    group.steps = steps;
    group.hardware = "8 x NVIDIA H100 80GB HBM3";
    for (size_t i = 0; i < times.size(); ++i) {
        GroupRun& run = group.runs.emplace_back();
        run.run.last_validation = Validation{steps, 3.27, times[i]};
        run.run.header.versions = {{"PyTorch", "2.10.0"}};
        run.run.header.hardware.driver = "570";
        if (first_start >= 0) run.run.header.started = first_start + every * static_cast<int64_t>(i);
    }
    return group;
}

bool warns(const Comparison& c, const std::string& part) {
    return std::ranges::any_of(c.warnings,
                               [&](const std::string& w) { return w.find(part) != std::string::npos; });
}

// scipy.stats.ttest_ind(changed, baseline, equal_var=False).confidence_interval(0.95)
TEST(Comparison, WelchAndTheTwoSharesOfTheGain) {
    const Comparison c = compare_groups(group_of(1000, {84600, 84700, 84650, 84550, 84800}),
                                        group_of(900, {83900, 83850, 83800}));
    EXPECT_DOUBLE_EQ(c.time_ms.value, -810);
    EXPECT_NEAR(c.time_ms.low, -936.823985623608, 1e-7);
    EXPECT_NEAR(c.time_ms.high, -683.176014376392, 1e-7);
    EXPECT_EQ(c.steps, -100);
    // 84.66 ms a step before, 93.1666... after: the steps were slower, and fewer.
    EXPECT_DOUBLE_EQ(c.by_steps_ms, -100 * (84.66 + 83850.0 / 900) / 2);
    EXPECT_NEAR(c.by_steps_ms + c.by_step_time_ms, c.time_ms.value, 1e-6);
    EXPECT_TRUE(c.warnings.empty()) << c.warnings.front();
    EXPECT_FALSE(c.interleaved);
}

TEST(Comparison, WarnsOfDifferencesThatAreNotTheChange) {
    RunGroup changed = group_of(1000, {800, 801});
    changed.hardware = "8 x NVIDIA H200";
    for (auto& run : changed.runs) {
        run.run.header.versions[0].second = "2.11.0";
        run.run.header.hardware.driver = "580";
    }
    const Comparison c = compare_groups(group_of(1000, {810, 811}), changed);
    EXPECT_TRUE(warns(c, "hardware differs: 8 x NVIDIA H100 80GB HBM3 -> 8 x NVIDIA H200"));
    EXPECT_TRUE(warns(c, "PyTorch differs: 2.10.0 -> 2.11.0"));
    EXPECT_TRUE(warns(c, "driver differs: 570 -> 580"));
    EXPECT_NE(comparison_text(c).find("warning: driver differs"), std::string::npos);
}

TEST(Comparison, KnowsWhetherRunsTookTurns) {
    const auto before = group_of(10, {100, 110, 120}, 0);
    const Comparison turns = compare_groups(before, group_of(10, {90, 100, 110}, 300));
    EXPECT_EQ(turns.interleaved, true);
    EXPECT_TRUE(turns.warnings.empty());
    const Comparison blocks = compare_groups(before, group_of(10, {90, 100, 110}, 5000));
    EXPECT_EQ(blocks.interleaved, false);
    EXPECT_TRUE(warns(blocks, "did not take turns"));
}

// The machine drifts by 10 ms a run; in pairs the gain is exact.
TEST(Comparison, PairsRemoveDrift) {
    RunGroup before = group_of(10, {100, 110, 120}, 0), after = group_of(10, {95, 105, 115}, 300);
    std::ranges::reverse(before.runs);  // pairs are made by start, not by name
    const Comparison c = compare_groups(before, after, 0.95, true);
    ASSERT_TRUE(c.paired_time);
    EXPECT_EQ(c.paired_time->value, -5);
    EXPECT_EQ(c.paired_time->low, -5);
    EXPECT_LT(c.time_ms.low, -20);
    expect_user_error([&] { compare_groups(before, group_of(10, {95}), 0.95, true); }, {"3", "1", "paired"});
}

TEST(Comparison, DegenerateSides) {
    const Comparison c = compare_groups(group_of(10, {100}), group_of(10, {90}));
    EXPECT_EQ(c.time_ms.value, -10);
    EXPECT_TRUE(std::isnan(c.time_ms.low));
    EXPECT_TRUE(warns(c, "no confidence interval"));
    EXPECT_TRUE(comparison_json(c)["time_ms"]["low"].is_null());
    const Comparison timeless =
        compare_groups(group_of(10, {kNotLogged, kNotLogged}), group_of(10, {90, 91}));
    EXPECT_TRUE(warns(timeless, "holds no times"));
    EXPECT_FALSE(comparison_markdown(timeless).empty());
    expect_user_error([] { compare_groups(group_of(10, {}), group_of(10, {90})); },
                      {"baseline", "no complete run"});
    expect_user_error([] { compare_groups(group_of(10, {1}), group_of(10, {90}), 1.5); }, {"confidence"});
}

}  // namespace
}  // namespace speedrun
