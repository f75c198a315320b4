// One rank that meets the others: `comm_rendezvous TIMEOUT_MS` prints what rank 0 hands out, `comm_rendezvous
// nccl` goes on to NCCL with the GPU of its local rank.
#include <cstdio>
#include <exception>
#include <string>

#include "comm/make_communicator.h"
#include "comm/rendezvous.h"

namespace speedrun {
namespace {

void meet(const LaunchEnvironment& environment, int64_t timeout_ms) {
    std::vector<uint8_t> bytes;
    if (environment.rank == 0) bytes = {'h', 'e', 'l', 'l', 'o', '\0', '!'};
    bytes = make_rendezvous(environment, std::chrono::milliseconds(timeout_ms))->from_rank_0(bytes);
    std::printf("rank %d: %s%s\n", static_cast<int>(environment.rank),
                reinterpret_cast<const char*>(bytes.data()),
                bytes.size() == 7 && bytes[6] == '!' ? ", whole" : "");
}

void run(const std::string& what) {
    const LaunchEnvironment environment = read_launch_environment();
    if (what != "nccl") return meet(environment, std::stoll(what));
    make_communicator(environment,
                      at::Device(at::kCUDA, static_cast<at::DeviceIndex>(environment.local_rank)))
        ->barrier("met");
    std::puts("met");
}

}  // namespace
}  // namespace speedrun

int main(int, char** arguments) {
    try {
        speedrun::run(arguments[1]);
        return 0;
    } catch (const std::exception& error) {
        std::printf("error: %s\n", error.what());
        return 2;
    }
}
