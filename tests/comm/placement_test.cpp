#include "comm/placement.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace speedrun {
namespace {

RankPlacement on(const std::string& host, const std::string& cores, int64_t core_count) {
    return {.host = host, .pid = 12, .device = "cpu", .numa = "0", .cores = cores, .core_count = core_count};
}

TEST(Placement, Ranges) {
    const auto text = [](std::vector<int64_t> numbers) { return ranges_text(numbers); };
    EXPECT_EQ(text({}), "");
    EXPECT_EQ(text({3}), "3");
    EXPECT_EQ(text({0, 1, 2, 3, 8}), "0-3,8");
    EXPECT_EQ(text({0, 2, 4, 5}), "0,2,4-5");
}

TEST(Placement, CoresAreDividedAmongRanksThatShareThem) {
    // Nobody bound: two hosts of 8 cores, 4 and 3 ranks.
    std::vector<RankPlacement> ranks(4, on("a", "0-7", 8));
    ranks.resize(7, on("b", "0-7", 8));
    for (int64_t r = 0; r < 7; ++r) EXPECT_EQ(threads_of_rank(ranks, r), 2) << r;
    // Each bound to its own.
    ranks = {on("a", "0-3", 4), on("a", "4-7", 4), on("b", "0-3", 4)};
    for (int64_t r = 0; r < 3; ++r) EXPECT_EQ(threads_of_rank(ranks, r), 4) << r;
    // More ranks than cores.
    ranks.assign(8, on("a", "0-1", 2));
    EXPECT_EQ(threads_of_rank(ranks, 7), 1);
}

TEST(Placement, ThisProcess) {
    const auto alone = make_self_communicator();
    const auto placements = gather_placements(*alone, at::Device("cpu"));
    ASSERT_EQ(placements.size(), 1U);
    EXPECT_EQ(placements[0].pid, getpid());
    EXPECT_EQ(placements[0].device, "cpu");
    EXPECT_FALSE(placements[0].host.empty());
    EXPECT_FALSE(placements[0].numa.empty());
    EXPECT_GE(placements[0].core_count, 1);
    EXPECT_EQ(placements[0].threads, placements[0].core_count);
    EXPECT_EQ(gather_placements(*alone, at::Device("cpu"), 3)[0].threads, 3);
}

TEST(Placement, Table) {
    std::vector<RankPlacement> ranks = {on("node0", "0-31", 32), on("node10", "32-63", 32)};
    ranks[0].threads = 32;
    ranks[1].threads = 8;
    ranks[1].device = "cuda:1";
    EXPECT_EQ(placement_table(ranks),
              "rank  host    pid  device  NUMA  cores  threads\n"
              "0     node0   12   cpu     0     0-31   32\n"
              "1     node10  12   cuda:1  0     32-63  8\n");
}

}  // namespace
}  // namespace speedrun
