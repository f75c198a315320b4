// Ranks that meet: real processes, started by a shell as torchrun would, or by mpirun.
#include "comm/rendezvous.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "comm/make_communicator.h"
#include "support/expect_error.h"
#include "support/mpirun.h"

namespace speedrun {
namespace {

const std::string kBuild = SPEEDRUN_BUILD_DIR;

// A port of this machine that nobody uses at the moment.
int free_port() {
    const int listener = socket(AF_INET6, SOCK_STREAM, 0);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
    close(listener);
    return ntohs(address.sin6_port);
}

// `ranks` processes with torchrun's variables; the exit code is that of the last.
JobResult torchrun(int ranks, const std::string& argument) {
    const std::string n = std::to_string(ranks);
    std::string command = "export WORLD_SIZE=" + n + " LOCAL_WORLD_SIZE=" + n +
                          " MASTER_ADDR=localhost OMP_NUM_THREADS=1 " +
                          "MASTER_PORT=" + std::to_string(free_port()) + "; ";
    for (int r = ranks - 1; r >= 0; --r)
        command += "RANK=" + std::to_string(r) + " LOCAL_RANK=" + std::to_string(r) + " " + kBuild +
                   "/comm_rendezvous " + argument + " & ";
    return run_command(command + "wait $!; code=$?; wait; exit $code");
}

int count(const std::string& text, const std::string& part) {
    int found = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
    return found;
}

TEST(Rendezvous, TcpStoreWithoutMpi) {
    const JobResult job = torchrun(3, "30000");
    EXPECT_EQ(job.exit_code, 0) << job.output;
    for (const char* rank : {"rank 0", "rank 1", "rank 2"})
        EXPECT_NE(job.output.find(std::string(rank) + ": hello, whole"), std::string::npos) << job.output;
}

TEST(Rendezvous, Mpi) {
    if (!std::filesystem::exists(kBuild + "/libspeedrun_mpi.so")) GTEST_SKIP() << "built without MPI";
    if (!have_mpirun()) GTEST_SKIP() << "needs Open MPI's mpirun";
    const JobResult job = mpirun(3, kBuild + "/comm_rendezvous 30000");
    EXPECT_EQ(job.exit_code, 0) << job.output;
    EXPECT_EQ(count(job.output, ": hello, whole"), 3) << job.output;
}

TEST(Rendezvous, NobodyComes) {
    LaunchEnvironment environment{.launcher = Launcher::torchrun, .rank = 1, .world_size = 2};
    environment.master_addr = "localhost";
    environment.master_port = free_port();
    testing::internal::CaptureStderr();
    expect_user_error(
        [&] { make_rendezvous(environment, std::chrono::milliseconds(500))->from_rank_0({}); },
        {"rank 1 of 2", "MASTER_ADDR=localhost", "MASTER_PORT=" + std::to_string(environment.master_port)});
    environment.rank = 0;
    expect_user_error([&] { make_rendezvous(environment, std::chrono::milliseconds(500))->from_rank_0({}); },
                      {"rank 0 of 2", "MASTER_PORT=" + std::to_string(environment.master_port)});
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Rendezvous, NoWayToMeet) {
    const LaunchEnvironment environment{.launcher = Launcher::slurm, .rank = 1, .world_size = 2};
    expect_user_error([&] { make_rendezvous(environment); }, {"srun (Slurm)", "MASTER_ADDR", "MASTER_PORT"});
}

// The modules lie beside the executables that use them, and this test lies elsewhere.
TEST(MakeCommunicator, MissingModulesAreNamed) {
    LaunchEnvironment environment{.launcher = Launcher::open_mpi, .rank = 1, .world_size = 2};
    environment.mpi = true;
    expect_user_error([&] { make_communicator(environment, at::kCPU); },
                      {"/libspeedrun_mpi.so is missing", "libopenmpi-dev"});
    expect_user_error([&] { make_communicator(environment, at::Device(at::kCUDA, 1)); },
                      {"/libspeedrun_nccl.so is missing", "nccl.h"});
}

TEST(MakeCommunicator, OneRankNeedsNoModule) {
    EXPECT_EQ(make_communicator({}, at::kCPU)->world_size(), 1);
    EXPECT_EQ(make_communicator({}, at::Device(at::kCUDA, 0))->world_size(), 1);
}

int gpus() {
    int found = 0;
    while (std::filesystem::exists("/dev/nvidia" + std::to_string(found))) ++found;
    return found;
}

bool have_nccl() {
    return std::filesystem::exists(kBuild + "/libspeedrun_nccl.so");
}

// The module is loaded and called; what CUDA says reaches the user.
TEST(Nccl, WithoutAGpu) {
    if (!have_nccl()) GTEST_SKIP() << "built without NCCL";
    if (gpus() > 0) GTEST_SKIP() << "needs a machine without a GPU, this one has " << gpus();
    const JobResult job = torchrun(2, "nccl");
    EXPECT_EQ(job.exit_code, 2) << job.output;
    EXPECT_EQ(count(job.output, "error: NCCL cannot start: "), 2) << job.output;
}

TEST(Nccl, CollectivesAreExact) {
    if (!have_nccl()) GTEST_SKIP() << "built without NCCL";
    if (gpus() < 2) GTEST_SKIP() << "needs 2 GPUs, this machine has " << gpus();
    if (!have_mpirun()) GTEST_SKIP() << "needs Open MPI's mpirun";
    for (const std::string tensors : {"cuda", "host"})
        for (int ranks = 2; ranks <= gpus(); ++ranks) {
            const JobResult job = mpirun(ranks, kBuild + "/comm_collectives all " + tensors, 180);
            EXPECT_EQ(job.exit_code, 0) << job.output;
        }
}

}  // namespace
}  // namespace speedrun
