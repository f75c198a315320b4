// Every collective on real ranks: mpirun starts comm_collectives and comm_failures, which check and print.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <sstream>
#include <string>

#include "support/mpirun.h"

namespace speedrun {
namespace {

const std::string kCollectives = std::string(SPEEDRUN_BUILD_DIR) + "/comm_collectives ";
const std::string kFailures = std::string(SPEEDRUN_BUILD_DIR) + "/comm_failures ";
// Ending the others is mpirun's work, which takes it a second or two.
constexpr int kSoon = 20;  // s

class Collectives : public testing::TestWithParam<int> {
  protected:
    void SetUp() override {
        if (!std::filesystem::exists(std::string(SPEEDRUN_BUILD_DIR) + "/libspeedrun_mpi.so"))
            GTEST_SKIP() << "built without MPI";
        if (!have_mpirun()) GTEST_SKIP() << "needs Open MPI's mpirun";
    }
};
using Failures = Collectives;

std::set<std::string> lines(const std::string& text, const std::string& prefix) {
    std::istringstream stream(text);
    std::set<std::string> found;
    for (std::string line; std::getline(stream, line);)
        if (line.starts_with(prefix)) found.insert(line);
    return found;
}

// Each rank prints a digest of sums that depend on their order.
TEST_P(Collectives, AreExactSendNoMoreThanTheyMustAndRepeatTheirBits) {
    std::set<std::string> digests;
    for (const char* what : {"all", "bits"}) {
        if (what == std::string("bits") && GetParam() == 8) continue;  // half of this test's time
        const JobResult job = mpirun(GetParam(), kCollectives + what);
        EXPECT_EQ(job.exit_code, 0) << job.output;
        digests.merge(lines(job.output, "digest"));
    }
    EXPECT_EQ(digests.size(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Ranks, Collectives, testing::Values(1, 2, 3, 4, 8));

TEST_F(Failures, AnExceptionInOneRankEndsTheJob) {
    for (const char* name : {"throws", "throws_with_pending"}) {
        const JobResult job = mpirun(3, kFailures + name, kSoon);
        EXPECT_EQ(job.exit_code, 2) << name << ": " << job.output;
        EXPECT_EQ(lines(job.output, "error: ").size(), 1U) << job.output;
        EXPECT_NE(job.output.find("error: shard 7 is bad"), std::string::npos) << job.output;
    }
}

TEST_F(Failures, AbortEndsRanksThatHang) {
    const JobResult job = mpirun(3, kFailures + "aborts", kSoon);
    EXPECT_EQ(job.exit_code, 41) << job.output;
}

TEST_F(Failures, RanksInDifferentCollectivesAreNoticed) {
    const JobResult job = mpirun(2, kFailures + "fails_twice", kSoon);
    EXPECT_EQ(job.exit_code, 2) << job.output;
    EXPECT_EQ(job.output.find("no error"), std::string::npos) << job.output;
    EXPECT_FALSE(lines(job.output, "attempt 0: all_reduce(differs): ").empty()) << job.output;
    EXPECT_FALSE(lines(job.output, "attempt 1: all_reduce(differs): ").empty()) << job.output;
}

TEST_F(Failures, ObserversSeeEveryCollectiveInItsThread) {
    const JobResult job = mpirun(2, kFailures + "observed", kSoon);
    EXPECT_EQ(job.exit_code, 0) << job.output;
    EXPECT_EQ(lines(job.output, ""),
              (std::set<std::string>{
                  "2 reduce_scatter(a); 2 done; 3 all_gather(b); 3 done; 4 all_reduce(c); 4 done; "
                  "5 broadcast(d); 5 done; 6 barrier(e); 6 done; ",
                  "7 collectives, busy yes, waited yes"}));
}

// Without mpirun MPI_Init finds one rank, whatever the environment says.
TEST_F(Failures, LauncherAndMpiMustAgree) {
    const JobResult job = run_command(
        "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 "
        "OMPI_COMM_WORLD_LOCAL_SIZE=2 " +
        kFailures + "throws");
    EXPECT_EQ(job.exit_code, 2);
    EXPECT_NE(job.output.find("says rank 1 of 2, but MPI says rank 0 of 1"), std::string::npos) << job.output;
}

TEST_F(Failures, TorchrunHasNoMpi) {
    const JobResult job = run_command(
        "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=29500 " +
        kFailures + "throws");
    EXPECT_EQ(job.exit_code, 2);
    EXPECT_NE(job.output.find("mpirun -n 2"), std::string::npos) << job.output;
}

}  // namespace
}  // namespace speedrun
