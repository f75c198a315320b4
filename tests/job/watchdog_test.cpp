// Who is to blame, from what is known of the ranks.
#include "job/watchdog.h"

#include <gtest/gtest.h>

#include "util/exit_codes.h"

namespace speedrun {
namespace {

constexpr Patience kPatience{.deadline_s = 5, .silence_s = 2};

RankView computing(int64_t after, double for_s = 6) {
    return {.process = {"node1", "", 40, 0},
            .state = {.step = 12,
                      .begun = after,
                      .what = "a" + std::to_string(after),
                      .inside = false,
                      .for_s = for_s}};
}
RankView waiting(int64_t in, double for_s) {
    RankView view = computing(in, for_s);
    view.state.inside = true;
    return view;
}
RankView silent(RankView view, double for_s) {
    view.silent_s = for_s;
    return view;
}
RankView finished(RankView view) {
    view.finished = true;
    return view;
}

std::string text(const std::vector<RankView>& ranks) {
    const auto late = find_late(ranks, kPatience);
    return late ? late->text : "";
}

TEST(Watchdog, NobodyIsLateBeforeTheDeadline) {
    EXPECT_EQ(text({waiting(3, 5.0), computing(2, 100), silent(waiting(3, 4), 5.0)}), "");
    EXPECT_EQ(text({finished(waiting(3, 100)), computing(2, 100), silent(finished(computing(2)), 100)}), "");
}

TEST(Watchdog, NamesThoseWhoHaveNotEntered) {
    EXPECT_EQ(text({waiting(3, 5.1), computing(2), waiting(3, 5.2)}),
              "rank 1 (node1, pid 40): late for collective 3, a3, in which 2 of 3 ranks have waited in step "
              "12 for up to "
              "5.2 s (deadline 5.0 s); it is in step 12, computing for 6.0 s after collective 2, a2");
    EXPECT_EQ(
        text({computing(0), computing(2), waiting(3, 9), computing(2), finished(computing(2))}).substr(0, 35),
        "ranks 0-1 and 3-4: late for collect");
}

// Rank 0 waits in an earlier collective, for rank 1.
TEST(Watchdog, NotThoseWhoAreHeldUpThemselves) {
    EXPECT_EQ(text({waiting(2, 4), computing(1), waiting(3, 6)}).substr(0, 29),
              "rank 1 (node1, pid 40): late ");
    EXPECT_EQ(text({waiting(2, 4), computing(4), waiting(3, 6)}).substr(0, 29),
              "rank 0 (node1, pid 40): late ");
}

TEST(Watchdog, TheEarliestCollectiveCounts) {
    const std::string found = text({waiting(2, 6), computing(1), waiting(3, 9)});
    EXPECT_NE(found.find("late for collective 2, a2, in which 1 of 3"), std::string::npos) << found;
}

TEST(Watchdog, SilenceComesBeforeLateness) {
    const std::string found = text({waiting(3, 6), silent(computing(2), 3), computing(2)});
    EXPECT_TRUE(found.starts_with("rank 1 (node1, pid 40): late for collective 3, a3, in which 1 of 3"))
        << found;
    EXPECT_NE(found.find("it has not answered for 3.0 s: stopped, or its machine is gone"), std::string::npos)
        << found;
}

TEST(Watchdog, SilenceAloneIsEnough) {
    EXPECT_EQ(text({computing(1), silent(computing(1), 5.1)}),
              "rank 1 (node1, pid 40): does not answer (deadline 5.0 s); it has not answered for 5.1 s: "
              "stopped, or its "
              "machine is gone; its last heartbeat: in step 12, computing for 6.0 s after collective 1, a1");
}

TEST(Watchdog, WhereAllAreInItTheNetworkHangs) {
    const auto late = find_late(std::vector{waiting(3, 6), waiting(3, 5)}, kPatience);
    ASSERT_TRUE(late);
    EXPECT_EQ(late->exit_code, kRankLost);
    EXPECT_EQ(
        late->text,
        "no rank is late for collective 3, a3, yet in it 2 of 2 ranks have waited in step 12 for up to 6.0 s "
        "(deadline 5.0 s): the network or the library between them hangs");
}

TEST(Watchdog, TheFirstUsersMistakeExplainsMost) {
    const std::vector<RankView> ranks(3, computing(1));
    const std::vector<Failure> failures{{2, kProgramFault, "internal error", "a socket broke"},
                                        {1, kUserError, "error", "bad shard"}};
    EXPECT_EQ(first_failure(ranks, failures).text, "rank 1 (node1, pid 40): error: bad shard");
    EXPECT_EQ(first_failure(ranks, failures).exit_code, kUserError);
    EXPECT_EQ(first_failure(ranks, {failures.data(), 1}).exit_code, kProgramFault);
    const std::vector<Failure> two{{2, kUserError, "error", "same"}, {0, kUserError, "error", "same"}};
    EXPECT_EQ(first_failure(ranks, two).text, "ranks 0 and 2: error: same");
}

TEST(Watchdog, DifferencesNameRanksAndValues) {
    const std::vector<RankView> ranks(4, computing(1));
    const Facts usual{{"build", "1"}, {"config", "a"}};
    EXPECT_FALSE(find_difference(ranks, std::vector(4, usual)));
    const auto found = find_difference(
        ranks, std::vector<Facts>{usual, {{"build", "1"}, {"config", "b"}}, usual, {{"build", "2"}}});
    ASSERT_TRUE(found);
    EXPECT_EQ(found->exit_code, kUserError);
    EXPECT_EQ(
        found->text,
        "error: the ranks were started with differing build: 1 on ranks 0-2, 2 on rank 3 (node1, pid 40); "
        "config: (nothing) on rank 3 (node1, pid 40), a on ranks 0 and 2, b on rank 1 (node1, pid 40)");
}

TEST(Activity, TellsHowLongTheRankHasBeenWhereItIs) {
    Activity activity;
    activity.at_step(4);
    activity.sample(1);
    EXPECT_EQ(describe(activity.sample(2)), "in step 4, computing for 3.0 s, before its first collective");
    activity.begin(1, "barrier(a)");
    EXPECT_EQ(activity.sample(5).for_s, 0) << "it may have begun just now";
    EXPECT_EQ(describe(activity.sample(1)), "in step 4, in collective 1, barrier(a) for 1.0 s");
    activity.end(1);
    activity.begin(2, "barrier(a)");
    EXPECT_EQ(activity.sample(1).for_s, 0);
    activity.end(2);
    EXPECT_EQ(describe(activity.sample(1)), "in step 4, computing for 0.0 s after collective 2, barrier(a)");
}

}  // namespace
}  // namespace speedrun
