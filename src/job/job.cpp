#include "job/job.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "comm/gather_text.h"
#include "job/ending.h"
#include "job/job_hub.h"
#include "job/job_spoke.h"
#include "util/error.h"

namespace speedrun {
namespace {

// Nobody to wait for, and nothing to compare with.
class LoneJob final : public Job {
  public:
    void at_step(int64_t step) override { activity_.at_step(step); }
    CollectiveObserver& observer() override { return activity_; }
    void set_deadline(double) override {}
    void require_same(const Facts&) override {}
    void at_end(std::function<void(const std::string&)>) override {}

  private:
    Activity activity_;
};

class WatchedJob final : public Job {
  public:
    explicit WatchedJob(Watch& watch) : watch_(watch) {}
    void at_step(int64_t step) override { watch_.activity().at_step(step); }
    CollectiveObserver& observer() override { return watch_.activity(); }
    void set_deadline(double seconds) override { watch_.set_deadline(seconds); }
    void require_same(const Facts& facts) override { watch_.require_same(facts); }
    void at_end(std::function<void(const std::string&)> told) override { watch_.at_end(std::move(told)); }

  private:
    Watch& watch_;
};

std::unique_ptr<Watch> make_watch(const JobSetup& setup) {
    if (setup.rank == 0) {
        const Reach reach = setup.one_machine ? Reach::this_machine : Reach::network;
        auto hub = std::make_unique<Hub>(setup.world_size, reach, setup.timing);
        setup.broadcast_text(ControlMessage(hub->address()).dump());
        return hub;
    }
    const auto address = ControlMessage::parse(setup.broadcast_text(""));
    if (address.at("version") != HubAddress{}.version)
        throw UserError("rank " + std::to_string(setup.rank) +
                        " runs another version of the program than rank 0");
    return std::make_unique<Spoke>(setup.rank, address.get<HubAddress>(), setup.timing);
}

bool share_a_loopback(Communicator& communicator) {
    const auto found = gather_text(communicator, loopback_id(), "start of the job");
    return std::ranges::all_of(found, [&](const std::string& id) { return id == found.front(); });
}

int guarded(Watch& watch, int64_t rank, const std::function<int(Job&)>& body) {
    try {
        WatchedJob job(watch);
        return body(job);
    } catch (...) {
        const Ending ending = ending_of(std::current_exception());
        watch.fail({.rank = rank, .exit_code = ending.exit_code, .label = ending.label, .text = ending.text});
    }
}

}  // namespace

int run_job(const JobSetup& setup, const std::function<int(Job&)>& body) {
    if (setup.world_size == 1) {
        LoneJob job;
        return body(job);
    }
    const std::unique_ptr<Watch> watch = make_watch(setup);
    watch->start();
    const int exit_code = guarded(*watch, setup.rank, body);
    watch->finish();
    return exit_code;
}

int run_job(Communicator& communicator, const JobTiming& timing, const std::function<int(Job&)>& body) {
    const JobSetup setup{.rank = communicator.rank(),
                         .world_size = communicator.world_size(),
                         .one_machine = share_a_loopback(communicator),
                         .broadcast_text =
                             [&](const std::string& text) {
                                 return gather_text(communicator, text, "start of the job").front();
                             },
                         .timing = timing};
    return run_job(setup, [&](Job& job) {
        communicator.observe(&job.observer());
        const int exit_code = body(job);
        communicator.observe(nullptr);
        return exit_code;
    });
}

}  // namespace speedrun
