#include "job/job.h"

#include <exception>
#include <utility>

#include "comm/gather_text.h"
#include "job/job_hub.h"
#include "job/job_spoke.h"
#include "util/error.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

// Nobody to wait for, and nothing to compare with.
class LoneJob final : public Job {
  public:
    void at_step(int64_t step) override { activity_.at_step(step); }
    CollectiveObserver& observer() override { return activity_; }
    void set_deadline(double) override {}
    void require_same(const Facts&) override {}

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

  private:
    Watch& watch_;
};

std::unique_ptr<Watch> make_watch(const JobSetup& setup) {
    if (setup.rank == 0) {
        auto hub = std::make_unique<Hub>(setup.world_size, setup.timing);
        setup.broadcast_text(ControlMessage(hub->address()).dump());
        return hub;
    }
    const auto address = ControlMessage::parse(setup.broadcast_text(""));
    if (address.at("version") != HubAddress{}.version)
        throw UserError("rank " + std::to_string(setup.rank) +
                        " runs another version of the program than rank 0");
    return std::make_unique<Spoke>(setup.rank, address.get<HubAddress>(), setup.timing);
}

int guarded(Watch& watch, int64_t rank, const std::function<int(Job&)>& body) {
    const auto failed = [&](int exit_code, const char* label, const char* text) {
        watch.fail({.rank = rank, .exit_code = exit_code, .label = label, .text = text});
    };
    try {
        WatchedJob job(watch);
        return body(job);
    } catch (const UserError& error) {
        failed(kUserError, "error", error.what());
    } catch (const std::exception& error) {
        failed(kProgramFault, "internal error", error.what());
    } catch (...) {
        failed(kProgramFault, "internal error", "an exception that is no std::exception");
    }
    throw InternalError("a failed rank goes on");
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
