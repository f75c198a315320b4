#include "record/log/stalls.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace speedrun {
namespace {

// A run whose step k takes ms(k).
auto run_of(int64_t steps, const std::function<double(int64_t)>& ms) {
    speedrun::Run run;
    double time = 0;
    run.clock.push_back({0, 0, true});
    for (int64_t step = 1; step <= steps; ++step) {
        time += ms(step);
        run.clock.push_back({step, time, false});
    }
    run.scheduled_steps = run.final_step = steps;
    run.last_validation = Validation{steps, 3.2, time};
    return run;
}

std::vector<int64_t> steps_of(const std::vector<Stall>& stalls) {
    std::vector<int64_t> steps;
    for (const Stall& stall : stalls) steps.push_back(stall.step);
    return steps;
}

TEST(StepTimes, AreDifferencesOfTheClock) {
    const auto times = step_times(run_of(3, [](int64_t k) { return 10.0 * static_cast<double>(k); }));
    ASSERT_EQ(times.size(), 3U);
    EXPECT_EQ(times[2].step, 3);
    EXPECT_EQ(times[2].ms, 30);
}

// 250: the host had run ahead by 58 ms, which the validation's line brings in. They are no step's.
TEST(StepTimes, WaitBeforeAValidationIsOfNoStep) {
    speedrun::Run run;
    run.clock = {{249, 1000, false}, {250, 1060, false}, {250, 1118, true}, {251, 1146, false}};
    const auto times = step_times(run);
    ASSERT_EQ(times.size(), 2U);
    EXPECT_EQ(times[0].ms, 60);
    EXPECT_EQ(times[1].ms, 28);
}

TEST(StepTimes, StartWhereTheClockWasSetBack) {
    speedrun::Run run;
    run.clock = {{0, 0, true},     {9, 34000, false}, {10, 35000, false},
                 {11, 100, false}, {12, 210, false},  {14, 400, false}};
    const auto times = step_times(run);
    ASSERT_EQ(times.size(), 1U);  // 13 has no line, so that 14's time is unknown
    EXPECT_EQ(times[0].step, 12);
    EXPECT_EQ(times[0].ms, 110);
}

TEST(Stalls, OfAnEvenRun) {
    const Stalls stalls = find_stalls(run_of(200, [](int64_t) { return 50; }));
    EXPECT_TRUE(stalls.hiccups.empty() && stalls.periodic.empty());
    EXPECT_EQ(stalls.median_step_ms, 50);
    EXPECT_EQ(stalls.time_without_ms, 10000);
}

TEST(Stalls, AreSlowerThanThreeMedians) {
    const Stalls stalls = find_stalls(run_of(200, [](int64_t k) {
        return k == 60 ? 150 : k == 90 ? 151 : k == 150 ? 850 : 50;
    }));
    EXPECT_EQ(steps_of(stalls.hiccups), (std::vector<int64_t>{90, 150}));
    EXPECT_EQ(stalls.lost_ms, 901);
    EXPECT_EQ(stalls.train_time_ms, 198 * 50 + 150 + 151 + 850 - 50);
    EXPECT_EQ(stalls.time_without_ms, stalls.train_time_ms - 901);
}

// Stages of 20, 70 and 230 ms: no step of a stage is a stall, though the last is far over three medians of
// the run.
TEST(Stalls, StagesAreNone) {
    const auto stage = [](int64_t k) { return k <= 400 ? 20.0 : k <= 600 ? 70.0 : 230.0; };
    EXPECT_TRUE(find_stalls(run_of(700, stage)).hiccups.empty());
    const Stalls one = find_stalls(run_of(700, [&](int64_t k) {
        return k == 650 ? 700 : k == 200 ? 65 : stage(k);
    }));
    EXPECT_EQ(steps_of(one.hiccups), (std::vector<int64_t>{200, 650}));
    EXPECT_EQ(one.lost_ms, 45 + 470);
}

TEST(Stalls, PeriodicOnesAreWork) {
    const auto soap = [](int64_t k) { return k % 10 == 0 ? 800.0 : 100.0; };
    const Stalls even = find_stalls(run_of(300, soap));
    EXPECT_EQ(even.period, 10);
    EXPECT_EQ(even.periodic.size(), 30U);
    EXPECT_EQ(even.periodic_ms, 30 * 700);
    EXPECT_TRUE(even.hiccups.empty());
    EXPECT_EQ(even.lost_ms, 0);
    const Stalls with_hiccups =
        find_stalls(run_of(300, [&](int64_t k) { return k == 33 || k == 207 ? 1100 : soap(k); }));
    EXPECT_EQ(with_hiccups.period, 10);
    EXPECT_EQ(steps_of(with_hiccups.hiccups), (std::vector<int64_t>{33, 207}));
    EXPECT_EQ(with_hiccups.lost_ms, 2000);
    EXPECT_EQ(with_hiccups.time_without_ms, with_hiccups.train_time_ms - 2000);
}

TEST(Stalls, AFewAtEqualDistancesAreNoPeriod) {
    const Stalls three =
        find_stalls(run_of(400, [](int64_t k) { return k == 100 || k == 150 || k == 200 ? 900 : 100; }));
    EXPECT_FALSE(three.period);
    EXPECT_EQ(three.hiccups.size(), 3U);
    // Four in a row, but only of thirty places.
    const Stalls four =
        find_stalls(run_of(400, [](int64_t k) { return k >= 100 && k <= 130 && k % 10 == 0 ? 900 : 100; }));
    EXPECT_FALSE(four.period);
    EXPECT_EQ(steps_of(four.hiccups), (std::vector<int64_t>{100, 110, 120, 130}));
}

TEST(Stalls, OfRunsWithoutStepTimes) {
    const Stalls none = find_stalls(speedrun::Run());
    EXPECT_TRUE(none.hiccups.empty());
    EXPECT_TRUE(std::isnan(none.median_step_ms) && std::isnan(none.time_without_ms));
    EXPECT_TRUE(find_stalls(run_of(1, [](int64_t) { return 5; })).hiccups.empty());
}

}  // namespace
}  // namespace speedrun
