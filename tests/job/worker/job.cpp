// One rank of the job of tests/job/job_worker.h under mpirun: job_job KEY=VALUE...
#include <ATen/ATen.h>

#include "comm/make_communicator.h"
#include "job/job_worker.h"

namespace speedrun {
namespace {

class MpiMeeting final : public Meeting {
  public:
    explicit MpiMeeting(Communicator& communicator) : communicator_(communicator) {}
    void all(int64_t, const std::string& what) override {
        communicator_.all_reduce(at::ones({10'000}), ReduceOp::sum, what)->wait();
    }
    bool all_stop(bool stop, int64_t) override {
        const at::Tensor any = at::full({}, stop ? 1 : 0, at::kLong);
        communicator_.all_reduce(any, ReduceOp::max, "stop")->wait();
        return any.item<int64_t>() != 0;
    }

  private:
    Communicator& communicator_;
};

int run(Arguments a) {
    const auto communicator = make_communicator(read_launch_environment(), at::kCPU);
    a.rank = communicator->rank();
    return run_job(*communicator, {}, [&](Job& job) {
        MpiMeeting meeting(*communicator);
        return work(a, job, meeting);
    });
}

}  // namespace
}  // namespace speedrun

int main(int count, char** words) {
    speedrun::hold_signals();
    try {
        return speedrun::run(speedrun::parse({words + 1, words + count}));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "outside of the job: %s\n", error.what());
        return 1;
    }
}
