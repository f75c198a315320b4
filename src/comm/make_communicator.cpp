#include "comm/make_communicator.h"

#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "comm/cpu_communicator.h"
#include "comm/mpi/mpi_transport.h"
#include "comm/nccl/nccl_communicator.h"
#include "util/error.h"

namespace speedrun {
namespace {

std::unique_ptr<Communicator> make_mpi_communicator(const LaunchEnvironment& environment) {
    if (!environment.mpi)
        throw UserError(std::string(launcher_name(environment.launcher)) + " started " +
                        std::to_string(environment.world_size) +
                        " ranks on CPUs, and those talk through MPI, which it does not set up; start them "
                        "with `mpirun -n " +
                        std::to_string(environment.world_size) + "`, or with `srun --mpi=pmix`");
    return make_cpu_communicator(make_mpi_transport(environment));
}

}  // namespace

std::unique_ptr<Communicator> make_communicator(const LaunchEnvironment& environment, c10::Device device) {
    if (environment.world_size == 1) return make_self_communicator();
    if (device.is_cpu()) return make_mpi_communicator(environment);
    return make_nccl_communicator(environment, device.index());
}

void abort_job(int exit_code) noexcept {
    using namespace std::chrono_literals;
    // Where MPI_Abort itself hangs, the process ends all the same, and its launcher ends the others.
    std::thread([exit_code] {
        std::this_thread::sleep_for(2s);
        _exit(exit_code);
    }).detach();
    abort_mpi(exit_code);
    _exit(exit_code);
}

}  // namespace speedrun
