#pragma once
// What a watchdog concludes from what it knows of the ranks, and how it says so. No clocks, no sockets.
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/activity.h"
#include "job/process_identity.h"

namespace speedrun {

// Rank r of a job, as the watchdog knows it; a job's views are in rank order.
struct RankView {
    ProcessIdentity process;
    RankState state;        // as last reported
    double silent_s = 0;    // since the last message
    bool finished = false;  // it has ended well, and left
};

// Why a job ends: the line to print last, and the exit code of its processes.
struct Cause {
    int exit_code = 0;
    std::string text;
};

struct Patience {
    double deadline_s = 300;  // of a collective, and of a silence
    double silence_s = 2;     // a rank that sends nothing for so long does not answer
};

// An exception that ended a rank's work.
struct Failure {
    int64_t rank = 0;
    int exit_code = 0;
    std::string label;  // "error", "internal error"
    std::string text;
};

// What must be the same on every rank, by name: "config", "build".
using Facts = std::map<std::string, std::string>;

// "rank 3 (node7, pid 4711)"
std::string rank_name(int64_t rank, const ProcessIdentity& process);
// "in step 12, computing for 5.3 s after collective 16, all_gather(mlp)"
std::string describe(const RankState& state);

// The ranks that keep others waiting: where one has been in a collective for longer than the deadline, those
// that do not answer, else those that have not entered it; where none waits, those silent for longer than the
// deadline.
std::optional<Cause> find_late(std::span<const RankView> ranks, const Patience& patience);

// Connections of `dead` ended without goodbye.
Cause rank_died(std::span<const RankView> ranks, const std::vector<int64_t>& dead);

// The first of `failures` (in the order in which they were heard of) that is a user's mistake, else the
// first: without a rank's name where every rank says the same.
Cause first_failure(std::span<const RankView> ranks, std::span<const Failure> failures);

// Ranks that did not appear at the start.
Cause never_joined(const std::vector<int64_t>& missing, const std::string& waited);

// Ranks that have not given the facts that others have given long ago.
Cause late_to_compare(std::span<const RankView> ranks, const std::vector<int64_t>& late,
                      const Patience& patience);

// Which ranks differ in what; none where all facts are equal.
std::optional<Cause> find_difference(std::span<const RankView> ranks, std::span<const Facts> facts);

}  // namespace speedrun
