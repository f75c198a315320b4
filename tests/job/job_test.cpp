// A job of real processes, one or all of which go wrong: how soon the others end, by which exit code, and
// what is said.
#include "job/job.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>

#include "job/callers.h"
#include "job/job_processes.h"
#include "support/expect_error.h"
#include "support/killed.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

using Strings = std::vector<std::string>;

// Death and exceptions end a job at once; the bound leaves room for a busy machine.
constexpr double kAtOnce = 2;
// Ten seconds after the deadline are allowed; the tests' deadline is 1 s.
constexpr double kAfterDeadline = 5;
constexpr int kAborted = 128 + SIGABRT;
const std::string kShard = "error: fineweb_train_000007.bin: not a shard:\nits magic number is 0";

std::string named(int rank) {
    return "rank " + std::to_string(rank) + R"( \([^ ]+, pid \d+\))";
}

// stderr is the one cause, and `code` the exit code of every rank but `victim` (-1: of every rank).
void expect_end(const JobProcesses& job, int world, int code, int victim, const std::string& pattern) {
    EXPECT_TRUE(std::regex_match(job.err(), std::regex(pattern.empty() ? "" : pattern + "\n"))) << job.err();
    for (int rank = 0; rank < world; ++rank)
        EXPECT_TRUE(rank == victim || job.exit_code(rank) == code)
            << "rank " << rank << ": " << job.exit_code(rank);
}

// Two jobs of four ranks at once: one goes wrong on rank 0, the other on rank 3. `check` gets the job, its
// victim, and how long it took to end.
void with_each_victim(const Strings& arguments,
                      const std::function<void(const JobProcesses&, int victim, double seconds)>& check) {
    const auto start = [&](int victim) {
        Strings words = arguments;
        words.push_back("victim=" + std::to_string(victim));
        return std::make_unique<JobProcesses>(4, words);
    };
    const std::pair<int, std::unique_ptr<JobProcesses>> jobs[] = {{0, start(0)}, {3, start(3)}};
    for (const auto& [victim, job] : jobs) {
        SCOPED_TRACE("victim " + std::to_string(victim));
        const double seconds = job->wait(20);
        check(*job, victim, seconds);
    }
}

TEST(Job, EndsCleanly) {
    JobProcesses job(4, {"steps=20"});
    job.wait(20);
    expect_end(job, 4, 0, -1, "");
}

TEST(Job, AloneNothingIsCaught) {
    const auto body = [](Job& job) {
        job.at_step(3);
        job.require_same({{"config", "any"}});
        return 7;
    };
    EXPECT_EQ(run_job({}, body), 7);
    expect_user_error([] { run_job({}, [](Job&) -> int { throw UserError("as it was"); }); }, {"as it was"});
}

// SPEEDRUN_KILL_TRIALS=100 for the figures.
TEST(Job, ARankKilledAtARandomMomentEndsTheOthers) {
    const char* const wanted = std::getenv("SPEEDRUN_KILL_TRIALS");
    const int trials = wanted ? std::atoi(wanted) : 4;
    constexpr int world = 8;
    std::mt19937 random(17);
    double longest = 0;
    for (int trial = 0; trial < trials; ++trial) {
        JobProcesses job(world, {"steps=1000000", "step_ms=5"});
        job.wait_until_working();
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 300'000));
        const int victim = trial == 0 ? 0 : static_cast<int>(random() % world);
        job.signal(victim, SIGKILL);
        longest = std::max(longest, job.wait(10));
        expect_end(job, world, kRankLost, victim, named(victim) + ": died; its last heartbeat: .*");
        EXPECT_EQ(job.exit_code(victim), kKilled);
    }
    EXPECT_LT(longest, kAtOnce);
    std::printf("%d trials, %.3f s at most from kill to the end of the last rank\n", trials, longest);
}

TEST(Job, AnExceptionEndsIt) {
    with_each_victim({"fault=throw"}, [](const JobProcesses& job, int victim, double seconds) {
        EXPECT_LT(seconds, kAtOnce);
        expect_end(job, 4, kProgramFault, -1,
                   named(victim) + ": internal error: the disk of this rank is full");
        // what printf had kept, on every rank
        EXPECT_EQ(job.out().size(), 4 * std::string("kept in the buffer of stdout").size());
    });
}

TEST(Job, AUsersMistakeOnOneRank) {
    with_each_victim({"fault=user"}, [](const JobProcesses& job, int victim, double seconds) {
        EXPECT_LT(seconds, kAtOnce);
        expect_end(job, 4, kUserError, -1, named(victim) + ": " + kShard);
    });
}

TEST(Job, AUsersMistakeOnAllRanksIsSaidOnce) {
    JobProcesses job(4, {"fault=user"});
    EXPECT_LT(job.wait(10), kAtOnce);
    expect_end(job, 4, kUserError, -1, kShard);
}

TEST(Job, LeavingByExitOrAbortIsDying) {
    for (const std::string fault : {"exit", "abort"})
        with_each_victim({"fault=" + fault}, [&](const JobProcesses& job, int victim, double seconds) {
            EXPECT_LT(seconds, kAtOnce);
            expect_end(job, 4, kRankLost, victim, named(victim) + ": died; its last heartbeat: .*");
            EXPECT_EQ(job.exit_code(victim), fault == "exit" ? 0 : kAborted);
        });
}

// Found by the collective that the others wait in, or where rank 0 is stopped, by its silence.
TEST(Job, AStoppedRankIsNamedAndKilled) {
    with_each_victim({"fault=stop", "deadline=1"}, [](const JobProcesses& job, int victim, double seconds) {
        EXPECT_GT(seconds, 0.9);
        EXPECT_LT(seconds, kAfterDeadline);
        const std::string accusation =
            victim == 0 ? "does not answer \\(deadline 1.0 s\\)"
                        : "late for collective 5, reduce_scatter\\(mlp\\), in which 3 of 4 "
                          "ranks have waited in step 2 for up to 1.\\d s \\(deadline 1.0 s\\)";
        expect_end(
            job, 4, kRankLost, victim,
            named(victim) + ": " + accusation +
                "; it has not answered for 1.\\d s: stopped, or its machine is gone; its last heartbeat: .*");
        EXPECT_EQ(job.exit_code(victim), kKilled);
    });
}

TEST(Job, ALateRankIsNamed) {
    with_each_victim({"fault=sleep", "sleep_ms=60000", "deadline=1"}, [](const JobProcesses& job, int victim,
                                                                         double seconds) {
        EXPECT_GT(seconds, 0.9);
        EXPECT_LT(seconds, kAfterDeadline);
        expect_end(job, 4, kRankLost, -1,
                   named(victim) +
                       ": late for collective 5, reduce_scatter\\(mlp\\), in which 3 of 4 ranks have "
                       "waited in step 2 for up to 1.\\d s \\(deadline 1.0 s\\); it is in step 2, "
                       "computing for 1.\\d s after collective 4, all_gather\\(mlp\\)");
    });
}

TEST(Job, JustBelowTheDeadlineIsNotLate) {
    with_each_victim({"fault=sleep", "sleep_ms=3400", "deadline=4", "steps=5"},
                     [](const JobProcesses& job, int, double) { expect_end(job, 4, 0, -1, ""); });
}

TEST(Job, SeveralLateRanksAreListed) {
    JobProcesses job(4, {"deadline=1", "steps=100000"});
    job.wait_until_working();
    job.signal(1, SIGSTOP);
    job.signal(3, SIGSTOP);
    job.wait(10);
    const std::string silent = ": it has not answered for .*";
    EXPECT_TRUE(
        std::regex_match(job.err(), std::regex("ranks 1 and 3: late for collective .* 2 of 4 ranks .*; " +
                                               named(1) + silent + "; " + named(3) + silent + "\n")))
        << job.err();
}

TEST(Job, FinishingEarlyIsNoDeath) {
    // one rank returns at step 2, and the others go on without it for three seconds
    with_each_victim({"fault=alone", "step_ms=400", "deadline=2"},
                     [](const JobProcesses& job, int, double) { expect_end(job, 4, 0, -1, ""); });
}

TEST(Job, FinishingWhereOthersWaitIsLate) {
    with_each_victim({"fault=return", "deadline=1"}, [](const JobProcesses& job, int victim, double) {
        // rank 0 stays to watch the others
        expect_end(
            job, 4, kRankLost, victim == 0 ? -1 : victim,
            named(victim) + ": late for collective 5, .*; it has finished its work after collective 4");
        EXPECT_EQ(job.exit_code(victim), victim == 0 ? kRankLost : 0);
    });
}

TEST(Job, DivergingRanksAreNamed) {
    with_each_victim({"fault=diverge", "deadline=1"}, [](const JobProcesses& job, int victim, double) {
        expect_end(job, 4, kProgramFault, -1,
                   "the ranks differ in collective 5: all_reduce\\(loss\\) on " + named(victim) +
                       ", reduce_scatter\\(mlp\\) on ranks " + (victim == 0 ? "1-3" : "0-2"));
    });
}

TEST(Job, DifferingConfigsRefuse) {
    with_each_victim({"fault=config"}, [](const JobProcesses& job, int victim, double seconds) {
        EXPECT_LT(seconds, kAtOnce);
        expect_end(job, 4, kUserError, -1,
                   "error: the ranks were started with differing config: c0ffee on " + named(victim) +
                       ", decade on ranks " + (victim == 0 ? "1-3" : "0-2"));
    });
}

TEST(Job, TheLowestRankAliveSpeaksForRankZero) {
    const std::pair<int, int> signals[] = {{SIGKILL, SIGKILL}, {SIGKILL, SIGSTOP}, {SIGSTOP, SIGSTOP}};
    std::vector<std::unique_ptr<JobProcesses>> jobs;
    for (const auto& [to_zero, to_one] : signals) {
        jobs.push_back(std::make_unique<JobProcesses>(5, Strings{"steps=1000000", "deadline=1"}));
        jobs.back()->wait_until_working();
        for (const int rank : {0, 1}) jobs.back()->stop(rank);  // so that neither sees the other's end
        if (to_one == SIGKILL) jobs.back()->signal(1, SIGKILL);
        if (to_zero == SIGKILL) jobs.back()->signal(0, SIGKILL);
    }
    for (size_t i = 0; i < jobs.size(); ++i) {
        SCOPED_TRACE(i);
        JobProcesses& job = *jobs[i];
        EXPECT_LT(job.wait_until_said(20), signals[i].first == SIGKILL ? kAtOnce : kAfterDeadline);
        // as mpirun does when the first rank has ended; those who wake up are to be quiet
        for (const int rank : {0, 1}) job.signal(rank, SIGCONT);
        EXPECT_LT(job.wait(20), kAtOnce);
        EXPECT_TRUE(std::regex_match(job.err(), std::regex(named(0) + ": (died|does not answer).*\n")))
            << job.err();
        for (const int rank : {2, 3, 4}) EXPECT_EQ(job.exit_code(rank), kRankLost);
        EXPECT_EQ(job.exit_code(0), signals[i].first == SIGKILL ? kKilled : kRankLost);
    }
}

TEST(Job, SuspendedAsAWholeItGoesOn) {
    JobProcesses job(4, {"steps=60", "deadline=2"});
    job.wait_until_working();
    for (int rank = 0; rank < 4; ++rank) job.signal(rank, SIGSTOP);
    std::this_thread::sleep_for(3200ms);
    for (int rank = 0; rank < 4; ++rank) job.signal(rank, SIGCONT);
    job.wait(20);
    expect_end(job, 4, 0, -1, "");
}

TEST(Job, SigtermStopsItCleanly) {
    JobProcesses job(4, {"steps=1000000"});
    job.wait_until_working();
    for (int rank = 0; rank < 4; ++rank) job.signal(rank, SIGTERM);
    EXPECT_LT(job.wait(20), kAtOnce);
    expect_end(job, 4, kInterrupted, -1, "");
}

TEST(Job, ARankThatNeverComesIsMissed) {
    JobProcesses job(4, {"join_ms=1000"}, {2});
    EXPECT_LT(job.wait(20), 1 + kAtOnce);
    EXPECT_TRUE(job.err().starts_with("rank 2: not heard of by rank 0 within 1 s of the start")) << job.err();
    for (const int rank : {0, 1, 3}) EXPECT_EQ(job.exit_code(rank), kRankLost);
}

TEST(Job, DeathBeforeAllHaveJoined) {
    for (const int victim : {0, 1}) {
        JobProcesses job(4, {}, {2});
        job.wait_for_address();
        std::this_thread::sleep_for(300ms);  // for the others to reach rank 0
        job.signal(victim, SIGKILL);
        EXPECT_LT(job.wait(20), kAtOnce);
        expect_end(job, 2, kRankLost, victim,
                   named(victim) + ": died; its last heartbeat: before the first step, computing .*");
    }
}

// Something that scans ports, or speaks another protocol, does no harm while rank 0 waits for the others.
TEST(Job, StrangersAreIgnored) {
    JobProcesses job(3, {"join_ms=1500"}, {2});
    job.wait_for_address();
    const auto port = nlohmann::json::parse(job.address()).at("port").get<uint16_t>();
    std::vector<Caller> callers;
    for (const std::string text : {"GET / HTTP/1.1\r\n\r\n", "{}\n", "{\"kind\": 1}\n",
                                   "{\"kind\":\"hello\",\"token\":\"?\",\"rank\":2}\n", "no end of line"}) {
        callers.emplace_back(port);
        ASSERT_TRUE(callers.back().connected());
        callers.back().send(text);
    }
    callers.emplace_back(port).send(std::string(20'000, '[') + "\n");
    job.wait(20);
    EXPECT_TRUE(job.err().starts_with("rank 2: not heard of by rank 0")) << job.err();
}

TEST(Job, RankZeroHearsNoCallersOnceAllHaveJoined) {
    JobProcesses job(3, {"steps=60"});
    job.wait_until_working();
    EXPECT_TRUE(listening_sockets(job.pid(0)).empty());
    EXPECT_EQ(listening_sockets(job.pid(1)).size(), 1U);
    job.wait(20);
    expect_end(job, 3, 0, -1, "");
}

TEST(Job, OnOneMachineItIsReachedByTheLoopbackAlone) {
    JobProcesses job(3, {"steps=60", "local=1"});
    job.wait_until_working();
    for (const int rank : {1, 2}) {
        const auto sockets = listening_sockets(job.pid(rank));
        ASSERT_EQ(sockets.size(), 1U);
        EXPECT_EQ(sockets[0].address, "0100007F");  // 127.0.0.1
    }
    job.wait(20);
    expect_end(job, 3, 0, -1, "");
}

// Lines without an end and connections without a word: neither memory nor descriptors are theirs for long.
TEST(Job, CallersThatFloodARankTakeLittleOfIt) {
    JobProcesses job(3, {"steps=150", "deadline=20"});
    job.wait_until_working();
    const pid_t rank = job.pid(1);
    const uint16_t port = listening_sockets(rank).at(0).port;
    const int64_t before = resident_kib(rank);
    std::vector<Caller> callers;
    for (int i = 0; i < 10; ++i) callers.emplace_back(port).send(std::string(4 << 20, 'x'));
    for (int i = 0; i < 400; ++i) callers.emplace_back(port);
    std::this_thread::sleep_for(300ms);
    EXPECT_LT(resident_kib(rank), before + 16 * 1024);
    EXPECT_LT(descriptors(rank), 64 + 40);
    job.wait(30);
    expect_end(job, 3, 0, -1, "");
}

// A rank without a descriptor for a caller goes on, and does not spin over it.
TEST(Job, CallersThatCannotBeAcceptedAreLeftWaiting) {
    JobProcesses job(3, {"steps=300", "nofile=24"});
    job.wait_until_working();
    const pid_t rank = job.pid(1);
    const uint16_t port = listening_sockets(rank).at(0).port;
    std::vector<Caller> callers;
    for (int i = 0; i < 40; ++i) callers.emplace_back(port);
    std::this_thread::sleep_for(100ms);
    const double before = processor_seconds(rank);
    std::this_thread::sleep_for(1000ms);
    EXPECT_LT(processor_seconds(rank) - before, 0.4);
    callers.clear();
    job.wait(30);
    expect_end(job, 3, 0, -1, "");
}

}  // namespace
}  // namespace speedrun
