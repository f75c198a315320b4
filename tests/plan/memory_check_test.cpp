#include "plan/memory_check.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "plan/scaling.h"
#include "support/expect_error.h"

namespace speedrun {
namespace {

const std::string quickstart_config = SPEEDRUN_SOURCE_DIR "/configs/quickstart.json";

Config with_micro_batch(int64_t tokens) {
    const std::vector<std::string> overrides{"data.micro_batch_tokens=" + std::to_string(tokens)};
    return load_config(quickstart_config, overrides);
}

int64_t needed(const Config& config, int64_t ranks = 1) {
    int64_t bytes = 0;
    for (const RankMemory& memory : rank_memory(config, plan_ownership(config, ranks), Operators::cpu))
        bytes += memory.peak();
    return bytes;
}

std::string mebibytes(int64_t bytes) {
    return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

TEST(MemoryCheck, LetsARunStartWithExactlyWhatItNeeds) {
    const Config config = with_micro_batch(2048);
    const RankRoom enough{"here", needed(config)}, unknown{"here", {}};
    EXPECT_NO_THROW(require_memory(config, std::vector{enough}, Operators::cpu));
    EXPECT_NO_THROW(require_memory(config, std::vector{unknown}, Operators::cpu));
}

TEST(MemoryCheck, NamesNeedFreeAndTheMicroBatchThatFits) {
    const Config config = with_micro_batch(2048);
    const int64_t free = needed(config) - 1;
    // 2048 is not prime: of its divisors, the longest whose plan fits.
    int64_t best = 0;
    for (int64_t tokens = 1; tokens <= 2048; tokens *= 2)
        if (needed(with_micro_batch(tokens)) <= free) best = tokens;
    ASSERT_GT(best, 0);
    ASSERT_LT(best, 2048);
    expect_user_error(
        [&] {
            require_memory(config, std::vector{RankRoom{"host a", free}}, Operators::cpu);
        },
        {"host a", "needs " + mebibytes(needed(config)), mebibytes(free) + " are free",
         "data.micro_batch_tokens that would fit is " + std::to_string(best) + ", not 2048",
         "runtime.memory_check=false"});
    const Config smaller = with_micro_batch(best);  // as the message says
    EXPECT_NO_THROW(require_memory(smaller, std::vector{RankRoom{"host a", free}}, Operators::cpu));
}

TEST(MemoryCheck, SaysWhereNoMicroBatchFits) {
    const Config config = with_micro_batch(2048);
    int64_t least = needed(config);
    for (int64_t tokens = 1; tokens <= 2048; tokens *= 2)
        least = std::min(least, needed(with_micro_batch(tokens)));
    const RankRoom room{"host a", least - 1};
    expect_user_error([&] { require_memory(config, std::vector{room}, Operators::cpu); },
                      {"No data.micro_batch_tokens would fit, it is 2048", "val_micro_batch_tokens = 4096"});
}

TEST(MemoryCheck, RanksOfOnePlaceShareIt) {
    const Config config = with_micro_batch(512);
    const int64_t both = needed(config, 2);
    const auto rooms = [](const std::string& second, int64_t free) {
        return std::vector<RankRoom>{{"host a", free}, {second, free}};
    };
    EXPECT_NO_THROW(require_memory(config, rooms("host a", both), Operators::cpu));
    EXPECT_NO_THROW(require_memory(config, rooms("host b", both - 1), Operators::cpu));
    expect_user_error([&] { require_memory(config, rooms("host a", both - 1), Operators::cpu); },
                      {"host a: its 2 ranks need " + mebibytes(both)});
}

TEST(MemoryCheck, TheRankWithTheLeastRoomCounts) {
    const Config config = with_micro_batch(512);
    const std::vector<RankRoom> rooms{{"cuda:0 of a", int64_t{1} << 40}, {"cuda:1 of a", 1 << 20}};
    expect_user_error([&] { require_memory(config, rooms, Operators::gpu); },
                      {"cuda:1 of a", "1 MiB are free"});
}

TEST(MemoryCheck, TheMicroBatchDividesEveryStage) {
    const std::vector<std::string> overrides{
        "data.micro_batch_tokens=64", "schedule.stages[0].batch_tokens=960",
        "schedule.stages[1].batch_tokens=1280", "schedule.stages[2].batch_tokens=1920",
        "schedule.stages[3].batch_tokens=3200"};
    const Config config = load_config(quickstart_config, overrides);
    ASSERT_EQ(common_batch_tokens(config), 320);
    const auto all = [](std::span<const RankMemory>) { return true; };
    const auto largest = [&](int64_t ranks, const auto& fits) {
        return largest_micro_batch(config, plan_ownership(config, ranks), Operators::cpu, fits);
    };
    EXPECT_EQ(largest(1, all), 320);
    EXPECT_EQ(largest(2, all), 160);
    EXPECT_EQ(largest(1, [](std::span<const RankMemory>) { return false; }), std::nullopt);
}

TEST(MemoryCheck, TheHostSaysWhatIsFree) {
    const auto bytes = free_memory(c10::kCPU);
    ASSERT_TRUE(bytes.has_value());
    EXPECT_GT(*bytes, 0);
}

}  // namespace
}  // namespace speedrun
