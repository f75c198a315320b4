// Times of the CPU's collectives: `mpirun -n 2 build/comm_bench`. Rank 0 prints, for tensors from 4 bytes to
// 64 MiB, the time of one, the bytes a rank sent per second, and the CPU time that all its threads took.
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>
#include <vector>

#include "comm/make_communicator.h"

namespace speedrun {
namespace {

double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
double cpu_seconds() {
    timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

void time_one(Communicator& comm, const char* name, int64_t bytes, const std::function<Handle()>& start) {
    constexpr int kWarm = 3;
    const int repeats = bytes < (1 << 20) ? 200 : 10;
    std::vector<double> times;
    double cpu = 0;
    int64_t sent = 0;
    for (int i = -kWarm; i < repeats; ++i) {
        comm.barrier("bench");
        const int64_t sent_before = comm.stats().bytes_sent;
        const double cpu_before = cpu_seconds(), before = seconds();
        start()->wait();
        if (i < 0) continue;
        times.push_back(seconds() - before);
        cpu += cpu_seconds() - cpu_before;
        sent = comm.stats().bytes_sent - sent_before;
    }
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    if (comm.rank() == 0)
        std::printf("%-16s %9lld B  median %9.1f us  best %9.1f us  %6.2f GB/s sent  %9.1f us CPU\n", name,
                    static_cast<long long>(bytes), median * 1e6, times[0] * 1e6,
                    static_cast<double>(sent) / median / 1e9, cpu / repeats * 1e6);
}

void time_idle(Communicator& comm) {
    const double before = cpu_seconds();
    const auto until = seconds() + 2;
    if (comm.rank() == 1)
        while (seconds() < until) {
        }
    comm.barrier("late rank");
    if (comm.rank() == 0)
        std::printf("waiting for a rank that is 2 s late: %.1f ms CPU\n", (cpu_seconds() - before) * 1e3);
}

void run() {
    const auto comm = make_communicator(read_launch_environment(), at::kCPU);
    const int64_t ranks = comm->world_size();
    for (const int64_t bytes : {4, 4096, 16384, 65536, 1 << 20, 16 << 20, 64 << 20}) {
        const at::Tensor tensor =
            at::zeros({bytes / 2 / ranks * ranks + (bytes == 4 ? 2 : 0)}, at::kBFloat16);
        const std::vector<int64_t> counts(static_cast<size_t>(ranks), tensor.numel() / ranks);
        time_one(*comm, "all_reduce", bytes,
                 [&] { return comm->all_reduce(tensor, ReduceOp::sum, "bench"); });
        if (tensor.numel() % ranks != 0) continue;
        time_one(*comm, "reduce_scatter", bytes,
                 [&] { return comm->reduce_scatter(tensor, counts, "bench"); });
        time_one(*comm, "all_gather", bytes, [&] { return comm->all_gather(tensor, counts, "bench"); });
    }
    if (ranks > 1) time_idle(*comm);
}

}  // namespace
}  // namespace speedrun

int main() {
    speedrun::run();
}
