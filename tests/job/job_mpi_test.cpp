// The job of job_test.cpp under Open MPI's mpirun, which sees ranks die as well, and ends the others in its
// way.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <regex>
#include <set>
#include <string>
#include <thread>

#include "support/killed.h"
#include "support/mpirun.h"
#include "support/temporary_folder.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

constexpr int kRanks = 3;

class JobUnderMpirun : public ::testing::Test {
  protected:
    void SetUp() override {
        if (!std::filesystem::exists(SPEEDRUN_BUILD_DIR "/libspeedrun_mpi.so"))
            GTEST_SKIP() << "built without MPI";
        if (!have_mpirun()) GTEST_SKIP() << "needs Open MPI's mpirun";
    }
    std::string program(const std::string& arguments) const {
        return SPEEDRUN_BUILD_DIR "/job_job folder=" + folder_.path().string() + " " + arguments;
    }
    // Running, stopped or anything else that is not dead. A dead one may wait for a parent: mpirun leaves the
    // ranks that it does not wait for to process 1, and in a container that need not take care of them.
    static bool lives(pid_t pid) {
        std::string stat;
        std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/stat"), stat);
        return !stat.empty() && stat.at(stat.rfind(')') + 2) != 'Z';
    }
    // No process of the job is left; forgets them.
    void expect_nobody_left() const {
        for (int rank = 0; rank < kRanks; ++rank) {
            const auto file = folder_ / ("pid." + std::to_string(rank));
            pid_t pid = 0;
            ASSERT_TRUE(std::ifstream(file) >> pid) << "rank " << rank << " has not begun to work";
            // the one that ends the job stays a moment longer than mpirun, for those that must be killed
            for (int i = 0; i < 100 && lives(pid); ++i)
                std::this_thread::sleep_for(std::chrono::milliseconds(10));
            EXPECT_FALSE(lives(pid)) << "rank " << rank << " is left";
            std::filesystem::remove(file);
        }
    }
    // All that is printed is `pattern`.
    void expect_end(const std::string& arguments, std::set<int> exit_codes,
                    const std::string& pattern) const {
        const JobResult job = mpirun(kRanks, program(arguments), 30);
        EXPECT_TRUE(exit_codes.contains(job.exit_code)) << job.exit_code << ": " << job.output;
        const std::string output =
            std::regex_replace(job.output, std::regex("kept in the buffer of stdout"), "");
        EXPECT_TRUE(std::regex_match(output, std::regex(pattern))) << output;
        expect_nobody_left();
    }

    TemporaryFolder folder_;
};

std::string named(int64_t rank) {
    return "rank " + std::to_string(rank) + R"( \([^ ]+, pid \d+\))";
}

TEST_F(JobUnderMpirun, EndsCleanly) {
    expect_end("steps=20", {0}, "");
}

TEST_F(JobUnderMpirun, TheFirstCauseIsPrintedLastAndOnce) {
    expect_end("fault=throw victim=1", {kProgramFault},
               named(1) + ": internal error: the disk of this rank is full\n");
    expect_end("fault=user", {kUserError},
               "error: fineweb_train_000007.bin: not a shard:\nits magic number is 0\n");
    expect_end("fault=stop victim=2 deadline=1", {kRankLost}, named(2) + ": late for collective .*\n");
}

// SPEEDRUN_KILL_TRIALS=100 for the figures. mpirun's own exit code is that of the first process whose end it
// notices.
TEST_F(JobUnderMpirun, ARankKilledAtARandomMoment) {
    const char* const wanted = std::getenv("SPEEDRUN_KILL_TRIALS");
    const int trials = wanted ? std::atoi(wanted) : 2;
    std::mt19937 random(5);
    // Open MPI copies from the memory of other processes.
    const std::string mpi_notices = R"((\[.*\] Read -1, expected \d+, errno = \d+\n)*)";
    double longest = 0;
    for (int trial = 0; trial < trials; ++trial) {
        const int64_t victim = trial == 0 ? 0 : random() % kRanks;
        expect_end("fault=kill steps=100000000 step_ms=1 victim=" + std::to_string(victim) +
                       " sleep_ms=" + std::to_string(random() % 50),
                   {kRankLost, kKilled}, mpi_notices + named(victim) + ": died; its last heartbeat: .*\n");
        const auto killed = std::filesystem::last_write_time(folder_ / "killed");
        longest = std::max(
            longest,
            std::chrono::duration<double>(std::filesystem::file_time_type::clock::now() - killed).count());
    }
    EXPECT_LT(longest, 5);
    std::printf("%d trials, %.3f s at most from kill to the end of mpirun and of the last rank\n", trials,
                longest);
}

// Plain mpirun follows SIGINT and SIGTERM by SIGKILL within a second.
TEST_F(JobUnderMpirun, ScriptsLaunchMpirunStopsCleanly) {
    const JobResult job = run_command(
        "OMP_NUM_THREADS=1 " SPEEDRUN_SOURCE_DIR "/scripts/launch/mpirun -n " + std::to_string(kRanks) +
            " --oversubscribe --allow-run-as-root --bind-to none " + program("steps=100000000 step_ms=1500") +
            " & job=$!; while [ ! -e " + (folder_ / ("pid." + std::to_string(kRanks - 1))).string() +
            " ]; do sleep 0.05; done; kill -TERM $job; wait $job",
        30);
    EXPECT_EQ(job.exit_code, kInterrupted) << job.output;
    expect_nobody_left();
}

// As where the ranks of another machine are cut off: an "mpirun" whose local rank has ended, and that goes
// on.
TEST_F(JobUnderMpirun, ScriptsLaunchEndsAnMpirunThatWaitsForNobodyHere) {
    const std::filesystem::path fake = folder_ / "mpirun";
    std::ofstream(fake) << "#!/usr/bin/env python3\nimport subprocess, time\n"
                           "subprocess.run(['sleep', '2'])\ntime.sleep(60)\n";
    std::filesystem::permissions(fake, std::filesystem::perms(0755));
    const auto began = std::chrono::steady_clock::now();
    const JobResult job =
        run_command("PATH=" + folder_.path().string() +
                        ":$PATH LAUNCH_PATIENCE=2 " SPEEDRUN_SOURCE_DIR "/scripts/launch/mpirun program",
                    40);
    EXPECT_EQ(job.exit_code, kRankLost) << job.output;
    EXPECT_NE(job.output.find("the ranks of this machine have ended"), std::string::npos) << job.output;
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
}

}  // namespace
}  // namespace speedrun
