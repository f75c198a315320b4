#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace speedrun {

enum class Launcher { none, open_mpi, hydra, slurm, torchrun };

// "mpirun (Open MPI)", "srun (Slurm)", ...: for messages.
const char* launcher_name(Launcher launcher);

// Which process of a run this is.
struct LaunchEnvironment {
    Launcher launcher = Launcher::none;
    int64_t rank = 0, world_size = 1;
    int64_t local_rank = 0, local_size = 1;  // among the ranks of this host
    bool mpi = false;                        // the launcher wires up MPI: MPI_Init will find the other ranks
    std::string master_addr = "";            // MASTER_ADDR and MASTER_PORT, or "" and 0
    int64_t master_port = 0;
    bool master_serves = false;  // torchrun's agent already runs a TCPStore there
    int64_t attempt = 0;         // restarts by torchrun
};

using EnvironmentLookup = std::function<std::optional<std::string>(const char* name)>;

// Reads the variables of, in this order,
//   Open MPI's mpirun   OMPI_COMM_WORLD_{RANK,SIZE,LOCAL_RANK,LOCAL_SIZE}
//   MPICH's Hydra       PMI_{RANK,SIZE}, MPI_LOCALRANKID, MPI_LOCALNRANKS (Intel MPI's too)
//   Slurm's srun        SLURM_{PROCID,LOCALID,NODEID,STEP_NUM_TASKS,STEP_TASKS_PER_NODE} in a real step
//   torchrun            RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, and its
//                       TORCHELASTIC_{RUN_ID,RESTART_COUNT,USE_AGENT_STORE}; the last three are optional
// A process in a Slurm allocation that is not a task of a step started by srun (a shell of salloc, a batch
// script) has Slurm variables and is one process all the same; mpirun's ranks may see those of its daemon.
// Half-set environments, variables that contradict each other, ranks outside their world, and anything that
// is not a number are UserErrors that name variables and values.
LaunchEnvironment read_launch_environment(const EnvironmentLookup& lookup);
LaunchEnvironment read_launch_environment();  // of this process

// Which of the `visible` GPUs this rank uses: that of its local rank, or the only one where the launcher
// shows each rank its own. UserError where there are too few.
int64_t gpu_of_rank(const LaunchEnvironment& environment, int64_t visible);

}  // namespace speedrun
