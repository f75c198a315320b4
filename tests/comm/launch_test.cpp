#include "comm/launch.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/expect_error.h"

namespace speedrun {
namespace {

using Variables = std::map<std::string, std::string>;

LaunchEnvironment read(const Variables& variables) {
    return read_launch_environment([&](const char* name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt : std::optional(found->second);
    });
}

Variables with(Variables variables, const Variables& more) {
    for (const auto& [name, value] : more) variables[name] = value;
    return variables;
}

Variables without(Variables variables, const std::string& name) {
    variables.erase(name);
    return variables;
}

const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "5"},
                            {"OMPI_COMM_WORLD_SIZE", "8"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                            {"PMIX_RANK", "5"}};
const Variables kHydra = {
    {"PMI_RANK", "5"}, {"PMI_SIZE", "8"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "4"}};
const Variables kSlurm = {{"SLURM_JOB_ID", "77"},        {"SLURM_STEP_ID", "0"},
                          {"SLURM_PROCID", "5"},         {"SLURM_LOCALID", "1"},
                          {"SLURM_NODEID", "1"},         {"SLURM_NTASKS", "8"},
                          {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_STEP_TASKS_PER_NODE", "4(x2)"}};
const Variables kTorchrun = {{"RANK", "5"},
                             {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "4"},
                             {"MASTER_ADDR", "node0"},
                             {"MASTER_PORT", "29500"}};

void expect_fifth_of_eight(const LaunchEnvironment& launch, Launcher launcher, bool mpi) {
    EXPECT_EQ(launch.launcher, launcher);
    EXPECT_EQ(launch.rank, 5);
    EXPECT_EQ(launch.world_size, 8);
    EXPECT_EQ(launch.local_rank, 1);
    EXPECT_EQ(launch.local_size, 4);
    EXPECT_EQ(launch.mpi, mpi);
}

void expect_alone(const LaunchEnvironment& launch) {
    EXPECT_EQ(launch.launcher, Launcher::none);
    EXPECT_EQ(launch.rank, 0);
    EXPECT_EQ(launch.world_size, 1);
    EXPECT_EQ(launch.local_rank, 0);
    EXPECT_EQ(launch.local_size, 1);
}

TEST(Launch, NoLauncher) {
    expect_alone(read({}));
    // Set by many a shell profile and by no launcher.
    expect_alone(read({{"MASTER_ADDR", "node0"}, {"OMP_NUM_THREADS", "4"}}));
}

TEST(Launch, OpenMpi) {
    expect_fifth_of_eight(read(kOpenMpi), Launcher::open_mpi, true);
}

TEST(Launch, Hydra) {
    expect_fifth_of_eight(read(kHydra), Launcher::hydra, true);
}

TEST(Launch, Slurm) {
    expect_fifth_of_eight(read(kSlurm), Launcher::slurm, false);
    expect_fifth_of_eight(read(with(kSlurm, {{"PMIX_RANK", "5"}})), Launcher::slurm, true);
    // srun --mpi=pmi2
    expect_fifth_of_eight(read(with(kSlurm, {{"PMI_RANK", "5"}, {"PMI_SIZE", "8"}})), Launcher::slurm, true);
}

TEST(Launch, SlurmTasksPerNode) {
    const auto local_size = [](const std::string& tasks, const std::string& node) {
        return read(with(kSlurm, {{"SLURM_STEP_TASKS_PER_NODE", tasks}, {"SLURM_NODEID", node}})).local_size;
    };
    EXPECT_EQ(local_size("2,6", "0"), 2);
    EXPECT_EQ(local_size("2,6", "1"), 6);
    EXPECT_EQ(local_size("2(x3),3,4(x2)", "2"), 2);
    EXPECT_EQ(local_size("2(x3),3,4(x2)", "3"), 3);
    EXPECT_EQ(local_size("2(x3),3,4(x2)", "5"), 4);
    for (const char* bad : {"", "4", "x", "4(x", "4(x2", "4;4", "4(2)"})
        expect_user_error([&] { local_size(bad, "1"); },
                          {"SLURM_STEP_TASKS_PER_NODE", bad, "SLURM_NODEID=1"});
}

TEST(Launch, SlurmVariablesWithoutAStep) {
    // A batch script, and a shell of salloc: one process each, whatever the allocation holds.
    expect_alone(read(without(kSlurm, "SLURM_STEP_ID")));
    expect_alone(read(with(kSlurm, {{"SLURM_STEP_ID", "4294967290"}})));
    expect_alone(read({{"SLURM_JOB_ID", "77"}, {"SLURM_NTASKS", "8"}}));
}

TEST(Launch, MpirunInsideSlurm) {
    // Started by mpirun's daemon, which is a task of its own step.
    const Variables daemon = with(kSlurm, {{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}});
    expect_fifth_of_eight(read(with(daemon, kOpenMpi)), Launcher::open_mpi, true);
    expect_fifth_of_eight(read(with(daemon, kHydra)), Launcher::hydra, true);
}

TEST(Launch, Torchrun) {
    const LaunchEnvironment launch = read(kTorchrun);
    expect_fifth_of_eight(launch, Launcher::torchrun, false);
    EXPECT_EQ(launch.master_addr, "node0");
    EXPECT_EQ(launch.master_port, 29500);
    // One task of srun a node, which is torchrun.
    const Variables srun = with(kSlurm, {{"SLURM_PROCID", "0"}, {"TORCHELASTIC_RUN_ID", "none"}});
    expect_fifth_of_eight(read(with(srun, kTorchrun)), Launcher::torchrun, false);
}

TEST(Launch, OneProcessNeedsNoRendezvous) {
    const LaunchEnvironment launch =
        read({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}, {"LOCAL_WORLD_SIZE", "1"}});
    EXPECT_EQ(launch.world_size, 1);
}

TEST(Launch, MasterIsReadFromEveryLauncher) {
    for (const Variables& variables : {kOpenMpi, kHydra, kSlurm}) {
        const LaunchEnvironment launch = read(with(variables, kTorchrun));
        EXPECT_EQ(launch.master_addr, "node0");
        EXPECT_EQ(launch.master_port, 29500);
    }
}

TEST(Launch, HalfSetIsAnError) {
    for (const Variables& variables : {kOpenMpi, kHydra, kSlurm, kTorchrun})
        for (const auto& [name, value] : variables) {
            if (name == "PMIX_RANK" || name == "SLURM_JOB_ID" || name == "SLURM_STEP_ID" ||
                name == "SLURM_NTASKS" || name == "SLURM_PROCID")
                continue;
            expect_user_error([&, missing = name] { read(without(variables, missing)); },
                              {"only half there", "but not " + name});
        }
    expect_user_error([] { read({{"RANK", "0"}}); }, {"RANK=\"0\"", "WORLD_SIZE"});
    expect_user_error([] { read(with(kOpenMpi, {{"MASTER_ADDR", "node0"}})); }, {"MASTER_PORT"});
}

TEST(Launch, ContradictionsNameBothValues) {
    for (const Variables& variables : {kOpenMpi, kHydra, kSlurm}) {
        expect_user_error([&] { read(with(variables, {{"RANK", "4"}})); }, {"RANK=4", "rank 5"});
        expect_user_error([&] { read(with(variables, {{"WORLD_SIZE", "9"}})); }, {"WORLD_SIZE=9", "size 8"});
        expect_user_error([&] { read(with(variables, {{"LOCAL_RANK", "5"}})); }, {"LOCAL_RANK=5", "rank 1"});
        expect_user_error(
            [&] {
                read(with(variables, {{"LOCAL_WORLD_SIZE", "8"}}));
            },
            {"LOCAL_WORLD_SIZE=8", "local size 4"});
    }
    expect_user_error(
        [] {
            read(with(kSlurm, {{"PMIX_RANK", "0"}}));
        },
        {"PMIX_RANK=0", "srun (Slurm)", "rank 5"});
    expect_user_error(
        [] {
            read(with(with(kOpenMpi, kHydra), {{"PMI_SIZE", "2"}}));
        },
        {"PMI_SIZE=2", "mpirun (Open MPI)", "world size 8"});
}

TEST(Launch, RanksOutsideTheirWorld) {
    const std::vector<std::pair<Variables, std::array<std::string, 4>>> launchers = {
        {kOpenMpi,
         {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
          "OMPI_COMM_WORLD_LOCAL_SIZE"}},
        {kHydra, {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"}},
        {kTorchrun, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}}};
    for (const auto& [variables, names] : launchers) {
        expect_user_error(
            [&] {
                read(with(variables, {{names[0], "8"}}));
            },
            {names[0] + "=8", names[1] + "=8", "0 to 7"});
        expect_user_error(
            [&] {
                read(with(variables, {{names[2], "4"}}));
            },
            {names[2] + "=4", names[3] + "=4"});
        expect_user_error(
            [&] {
                read(with(variables, {{names[3], "9"}}));
            },
            {names[3] + "=9", names[1] + "=8"});
        expect_user_error([&] { read(with(variables, {{names[1], "0"}})); }, {names[1] + "=0"});
    }
    expect_user_error(
        [] {
            read(with(kSlurm, {{"SLURM_PROCID", "9"}}));
        },
        {"SLURM_PROCID=9", "SLURM_STEP_NUM_TASKS=8"});
}

TEST(Launch, NotANumber) {
    for (const char* bad : {"", "x", "-1", "1.5", "1 ", "99999999999999999999", "0x1", "\x1b[31m"}) {
        expect_user_error(
            [&] {
                read(with(kOpenMpi, {{"OMPI_COMM_WORLD_RANK", bad}}));
            },
            {"OMPI_COMM_WORLD_RANK=", "not a number"});
        expect_user_error(
            [&] {
                read(with(kTorchrun, {{"WORLD_SIZE", bad}}));
            },
            {"WORLD_SIZE=", "not a number"});
        expect_user_error([&] { read(with(kSlurm, {{"SLURM_LOCALID", bad}})); }, {"SLURM_LOCALID="});
        expect_user_error([&] { read(with(kHydra, {{"RANK", bad}})); }, {"RANK="});
    }
    for (const char* bad : {"0", "65536", "http"})
        expect_user_error([&] { read(with(kTorchrun, {{"MASTER_PORT", bad}})); }, {"MASTER_PORT="});
    expect_user_error([] { read(with(kTorchrun, {{"MASTER_ADDR", ""}})); }, {"MASTER_ADDR"});
}

TEST(Launch, GpuOfRank) {
    LaunchEnvironment launch = read(kOpenMpi);
    EXPECT_EQ(gpu_of_rank(launch, 8), 1);
    EXPECT_EQ(gpu_of_rank(launch, 2), 1);
    EXPECT_EQ(gpu_of_rank(launch, 1), 0);  // the launcher shows each rank its own
    launch.local_rank = 3;
    expect_user_error([&] { gpu_of_rank(launch, 3); }, {"rank 5", "number 3 of 4", "3 GPUs"});
    expect_user_error([&] { gpu_of_rank(launch, 0); }, {"0 GPUs"});
}

}  // namespace
}  // namespace speedrun
