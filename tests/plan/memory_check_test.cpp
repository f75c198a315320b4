#include "plan/memory_check.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/load_config.h"
#include "plan/scaling.h"
#include "support/expect_error.h"

namespace speedrun {
namespace {

const std::string quickstart = SPEEDRUN_SOURCE_DIR "/configs/quickstart.json";

Config with_rows(int64_t rows) {
    const std::vector<std::string> overrides{"data.rows=" + std::to_string(rows)};
    return load_config(quickstart, overrides);
}

int64_t needed(const Config& config, int64_t ranks = 1) {
    int64_t bytes = 0;
    for (const RankMemory& memory :
         rank_memory(config, compile(config), plan_ownership(config, ranks), Operators::cpu))
        bytes += memory.peak();
    return bytes;
}

std::string mebibytes(int64_t bytes) {
    return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

TEST(MemoryCheck, LetsARunStartWithExactlyWhatItNeeds) {
    const Config config = with_rows(1);
    const RankRoom enough{"here", needed(config)}, unknown{"here", {}};
    EXPECT_NO_THROW(require_memory(config, std::vector{enough}, Operators::cpu));
    EXPECT_NO_THROW(require_memory(config, std::vector{unknown}, Operators::cpu));
}

TEST(MemoryCheck, NamesNeedFreeAndTheRowsThatFit) {
    const Config config = with_rows(1);
    const int64_t free = needed(config) - 1;
    // The fewest rows that the batch of 2048 tokens divides into and whose plan fits.
    int64_t best = 2048;
    for (int64_t rows = 2048; rows > 0; rows /= 2)
        if (needed(with_rows(rows)) <= free) best = rows;
    ASSERT_GT(best, 1);
    ASSERT_LT(best, 2048);
    expect_user_error(
        [&] {
            require_memory(config, std::vector{RankRoom{"host a", free}}, Operators::cpu);
        },
        {"host a", "needs " + mebibytes(needed(config)), mebibytes(free) + " are free",
         "It would fit with data.rows = " + std::to_string(best) + ", not 1", "runtime.memory_check=false"});
    const Config smaller = with_rows(best);  // as the message says
    EXPECT_NO_THROW(require_memory(smaller, std::vector{RankRoom{"host a", free}}, Operators::cpu));
}

TEST(MemoryCheck, SaysWhereNoRowsFit) {
    const Config config = with_rows(1);
    int64_t least = needed(config);
    for (int64_t rows = 1; rows <= 2048; rows *= 2) least = std::min(least, needed(with_rows(rows)));
    const RankRoom room{"host a", least - 1};
    expect_user_error([&] { require_memory(config, std::vector{room}, Operators::cpu); },
                      {"No data.rows would fit, it is 1", "val_micro_batch_tokens = 4096"});
}

TEST(MemoryCheck, RanksOfOnePlaceShareIt) {
    const Config config = with_rows(4);
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
    const Config config = with_rows(4);
    const std::vector<RankRoom> rooms{{"cuda:0 of a", int64_t{1} << 40}, {"cuda:1 of a", 1 << 20}};
    expect_user_error([&] { require_memory(config, rooms, Operators::gpu); },
                      {"cuda:1 of a", "1 MiB are free"});
}

TEST(MemoryCheck, TheRowsDivideTheBatchOfEveryStage) {
    const std::vector<std::string> overrides{
        "data.rows=20", "schedule.stages[0].batch_tokens=960", "schedule.stages[1].batch_tokens=1280",
        "schedule.stages[2].batch_tokens=1920", "schedule.stages[3].batch_tokens=3200"};
    const Config config = load_config(quickstart, overrides);
    ASSERT_EQ(common_batch_tokens(config), 320);
    const auto all = [](std::span<const RankMemory>) { return true; };
    const Graph graph = compile(config);
    const auto fewest = [&](int64_t ranks, const auto& fits) {
        return fewest_rows(config, graph, plan_ownership(config, ranks), Operators::cpu, fits);
    };
    EXPECT_EQ(fewest(1, all), 1);
    EXPECT_EQ(fewest(2, all), 2);
    EXPECT_EQ(fewest(1, [](std::span<const RankMemory>) { return false; }), std::nullopt);
}

TEST(MemoryCheck, TheHostSaysWhatIsFree) {
    const auto bytes = free_memory(c10::kCPU);
    ASSERT_TRUE(bytes.has_value());
    EXPECT_GT(*bytes, 0);
}

}  // namespace
}  // namespace speedrun
