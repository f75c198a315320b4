// One rank of a job that goes wrong: started by mpirun, `comm_failures CASE`. What the rank itself saw is
// printed; exit code 2 is that of a rank whose exception ended it.
#include <ATen/ATen.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/make_communicator.h"
#include "util/error.h"

namespace speedrun {
namespace {

using namespace std::chrono_literals;

void print(const std::string& line) {
    if (write(STDOUT_FILENO, (line + "\n").c_str(), line.size() + 1) < 0) std::perror("write");
}

// One rank throws where the others wait for it.
void throws(Communicator& comm) {
    comm.barrier("first");
    if (comm.rank() == 1) throw UserError("shard 7 is bad");
    comm.barrier("second");
}

// The same, and it has started collectives whose results it never takes.
void throws_with_pending(Communicator& comm) {
    comm.barrier("first");
    const at::Tensor tensor = at::ones({1000000});
    if (comm.rank() == 1) {
        const Handle never = comm.all_reduce(tensor, ReduceOp::sum, "left");
        const Handle nor = comm.all_reduce(tensor, ReduceOp::sum, "behind");
        throw UserError("shard 7 is bad");
    }
    std::this_thread::sleep_for(60s);
}

// Another thread ends the job while this rank hangs in a collective.
void aborts(Communicator& comm) {
    std::thread watchdog;
    if (comm.rank() == 0)
        watchdog = std::thread([] {
            std::this_thread::sleep_for(200ms);
            abort_job(41);
        });
    if (comm.rank() == 1) std::this_thread::sleep_for(60s);
    comm.barrier("hangs");
    if (watchdog.joinable()) watchdog.join();
}

// Two ranks are in different collectives, which their sizes show.
void differs(Communicator& comm) {
    const at::Tensor tensor = at::ones({comm.rank() + 2});
    comm.all_reduce(tensor, ReduceOp::sum, "differs")->wait();
}

// After a failure no collective is run any more.
void fails_twice(Communicator& comm) {
    for (int i = 0; i < 2; ++i) try {
            differs(comm);
            print("no error");
        } catch (const std::exception& error) {
            print("attempt " + std::to_string(i) + ": " + error.what());
        }
    throw UserError("as expected");
}

class Recorder final : public CollectiveObserver {
  public:
    void begin(int64_t sequence, const std::string& what) override {
        seen +=
            std::to_string(sequence) + " " + what + (std::this_thread::get_id() == caller ? "!" : "") + "; ";
    }
    void end(int64_t sequence) override { seen += std::to_string(sequence) + " done; "; }
    std::string seen;
    const std::thread::id caller = std::this_thread::get_id();
};

void observed(Communicator& comm) {
    const at::Tensor tensor = at::ones({2});
    const std::vector<int64_t> counts(static_cast<size_t>(comm.world_size()), 1);
    comm.barrier("unseen");
    Recorder recorder;
    comm.observe(&recorder);
    comm.reduce_scatter(tensor, counts, "a")->wait();
    comm.all_gather(tensor, counts, "b")->wait();
    comm.all_reduce(tensor, ReduceOp::max, "c")->wait();
    comm.broadcast(tensor, 0, "d")->wait();
    comm.barrier("e");
    comm.observe(nullptr);
    comm.barrier("unseen");
    print(recorder.seen);
    const CommStats stats = comm.stats();
    print(std::to_string(stats.collectives) + " collectives, busy " + (stats.busy > 0ns ? "yes" : "no") +
          ", waited " + (stats.waited > 0ns && stats.waited < 30s ? "yes" : "no"));
}

void run(const std::string& name) {
    const std::map<std::string, std::function<void(Communicator&)>> cases = {
        {"throws", throws},     {"throws_with_pending", throws_with_pending},
        {"aborts", aborts},     {"differs", differs},
        {"observed", observed}, {"fails_twice", fails_twice},
    };
    const auto comm = make_communicator(read_launch_environment(), at::kCPU);
    cases.at(name)(*comm);
}

}  // namespace
}  // namespace speedrun

int main(int, char** arguments) {
    try {
        speedrun::run(arguments[1]);
        return 0;
    } catch (const std::exception& error) {
        speedrun::print(std::string("error: ") + error.what());
        return 2;
    }
}
