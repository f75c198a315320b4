#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "comm/communicator.h"

namespace speedrun {

struct JobTiming {
    double deadline_s = 300;                   // until Job::set_deadline says another
    std::chrono::milliseconds heartbeat{500};  // at most; an eighth of the deadline where that is less
    std::chrono::milliseconds join{60'000};    // for all ranks to be there at the start
};

struct JobSetup {
    int64_t rank = 0, world_size = 1;
    bool one_machine =
        false;  // all ranks are on one, whose loopback they share: nobody else can reach their ports
    // Called once by every rank: returns rank 0's text everywhere.
    std::function<std::string(std::string)> broadcast_text;
    JobTiming timing;
};

// This rank's side of a job of several processes that end together. Made by run_job.
class Job {
  public:
    virtual ~Job() = default;
    // For messages. One atomic store.
    virtual void at_step(int64_t step) = 0;
    // For Communicator::observe: by it the watchdog knows who is late. Lives as long as the job.
    virtual CollectiveObserver& observer() = 0;
    // How long ranks may wait for one another (runtime.collective_deadline_s). The same on every rank.
    virtual void set_deadline(double seconds) = 0;
    // Every rank calls it with the same names, such as "config" and "build". Where values differ, the job
    // ends as by a UserError that says which ranks have what.
    virtual void require_same(const std::map<std::string, std::string>& facts) = 0;
    // Called with the cause where another rank, or a mistake of another rank, ends the job, before this
    // process leaves: by the watchdog's thread, beside what the rank does, and for seconds at most.
    virtual void at_end(std::function<void(const std::string& why)> told) = 0;
};

// Runs `body` on this rank, and returns what it returns once it may leave: rank 0 stays until all have ended
// their work. A thread beside it tells rank 0 a few times a second what this rank does. Where
//   - `body` throws, on any rank or on all,
//   - a rank dies, or leaves without having returned from `body`,
//   - a rank waits in a collective, or is silent, for longer than the deadline,
// run_job does not return: every rank leaves at once, whatever its threads hang in, without running
// destructors, by the exit code of the first cause (util/exit_codes.h). That cause is printed once, after
// all other ranks have gone, by rank 0, or by the lowest rank alive where rank 0 is the cause. Ranks of that
// machine that are stopped are killed; those elsewhere by the lowest rank there.
// What `body` owns must not wait for other ranks in its destructors when it throws.
// Open MPI's mpirun adds a banner of its own behind the last line unless it is told --quiet. Its exit code is
// that of the first process whose end it notices: for a rank that was killed mostly 128 + the signal. Once a
// rank has ended badly it sends the others SIGTERM, and SIGKILL a second later: a rank that is to say why
// must have SIGTERM blocked (train/interrupt.h does). Alone (world_size 1) `body` is called and nothing else
// happens: exceptions pass. UserError where rank 0 cannot be reached.
int run_job(const JobSetup& setup, const std::function<int(Job&)>& body);

// The same for the ranks of `communicator`: observes it while `body` runs, and lets rank 0's address be known
// by it. `communicator` is not `body`'s own, and must live longer.
int run_job(Communicator& communicator, const JobTiming& timing, const std::function<int(Job&)>& body);

}  // namespace speedrun
