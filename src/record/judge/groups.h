#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "record/log/run_log.h"

namespace speedrun {

struct GroupRun {
    std::filesystem::path path;
    size_t index = 0;  // of the run in its file
    Run run;
};

// A run or a file that the statistics leave out, and why.
struct Excluded {
    std::filesystem::path path;
    size_t index = 0;
    std::string reason;   // "stopped after step 500 of 1390", "the same run as a.txt", "no step lines", ...
    bool repeat = false;  // of a run that is not left out
};

// Complete runs that may be compared, each a sample of its own (a log of the same_run is none, nor is a seed
// that has a run already): one folder, one number of steps, one source, one kind of hardware. A folder none
// of whose runs is complete has one group without runs.
struct RunGroup {
    std::filesystem::path path;
    int64_t steps = 0;                  // scheduled, or done where the log does not say
    std::string source_hash, hardware;  // "" where CollectOptions::counts_steps lets them differ
    std::vector<GroupRun> runs;
    std::vector<Excluded> excluded;
    bool has_log = false;  // some file of the group holds a run, complete or not

    // The folder; for a log that was named without one, the log.
    std::string name() const;
    std::vector<double> final_losses() const;
    std::vector<double> final_times_ms() const;
};

struct Collection {
    std::vector<RunGroup> groups;      // ordered by path, then steps
    std::vector<std::string> remarks;  // log_remarks() of the logs
    int64_t unplaced_count = 0;
    std::vector<std::string> problems;  // paths that could not be read or hold no logs
    int64_t files = 0;
    uint64_t bytes = 0;
};

struct CollectOptions {
    ParseOptions parse{.keep_clock = false, .keep_train_losses = false};
    bool pool = false;  // groups may span the folders
    // For track 3: runs of one group may differ in source and hardware, and be stopped before their last
    // step.
    bool counts_steps = false;
    int threads = 0;  // 0: as many as the machine has
};

// Reads the logs of files and folders, folders with everything below them. In a folder *.txt and *.log are
// logs; a file that is named is read whatever its name. What cannot be read is told in the result, not
// thrown.
Collection collect_runs(std::span<const std::filesystem::path> paths, const CollectOptions& options = {});

}  // namespace speedrun
