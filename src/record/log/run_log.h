#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "record/log/data_shard.h"

namespace speedrun {

inline constexpr double kNotLogged = std::numeric_limits<double>::quiet_NaN();

// A validation line. Times are on the track's clock; kNotLogged where the log's form has none.
struct Validation {
    int64_t step = 0;
    double loss = 0;  // nats per token; NaN and infinities as logged
    double train_time_ms = kNotLogged;
    double ema_loss = kNotLogged;  // of the weights' moving average
};

// The clock as one line shows it: after training step `step`, or at the validation that followed it.
struct ClockReading {
    int64_t step = 0;
    double train_time_ms = 0;
    bool validation = false;
};

struct TrainLoss {
    int64_t step = 0;
    double loss = 0;  // nats per token
};

// What the log says its run was on. Empty texts and 0 where it does not say.
struct RunHardware {
    int64_t gpus = 0;
    std::string device;        // "NVIDIA H100 80GB HBM3", or the processor's model where there is no GPU
    std::string driver, cuda;  // nvidia-smi's "Driver Version" and "CUDA Version"
    int64_t cores = 0;         // of the processor, where that is the device

    // "8 x NVIDIA H100 80GB HBM3"; driver and cuda are left out, as two runs on the same machine may differ
    // in them. "" where nothing is known.
    std::string text() const;
    bool operator==(const RunHardware&) const = default;
};

// What stands in a log before its steps.
struct RunHeader {
    std::string source_hash;  // of the bytes before the header, the program's source or config; "" without
    std::optional<int64_t>
        started;  // nvidia-smi's date, in seconds as if it were UTC: to order the runs of a machine
    RunHardware hardware;
    std::vector<std::pair<std::string, std::string>> versions;  // "PyTorch" -> "2.10.0+cu128", as logged
    std::vector<std::pair<std::string, std::string>> fields;    // "commit", "config sha256", ... of own logs

    // The value of a field, or "".
    std::string field(const std::string& name) const;
    bool operator==(const RunHeader&) const = default;
};

// One run of a log. `Run` lists grow with the lines of the log; everything else is of constant size.
struct Run {
    RunHeader header;
    std::optional<int64_t> scheduled_steps;  // N of "step:n/N"; the oldest logs do not say
    std::optional<uint64_t> seed;
    int64_t final_step = 0;  // of the last line
    int64_t lines = 0;       // step and validation lines
    // Of their numbers: two logs of one run have the same, whatever ends their lines.
    uint64_t fingerprint = 0;
    bool repeats_another = false;  // some of its validation lines stand in a run above it, and are left out
    bool ends_validated = false;   // the last line is a validation
    std::optional<Validation> last_validation;
    double train_time_ms = kNotLogged;  // of the last line
    double step_avg_ms = kNotLogged;    // of the last line; NaN as logged
    int64_t peak_memory_mib = 0;        // 0 where not logged
    std::vector<DataShard> data;        // what the run has read, where the log says it

    std::vector<Validation> validations;  // their steps grow
    // Kept where ParseOptions says so.
    std::vector<ClockReading> clock;
    std::vector<TrainLoss> train_losses;

    // The run reached its scheduled end and was validated there. A log that does not say how many steps were
    // scheduled counts as complete where its last line is a validation after at least one step. A part of a
    // run that stands twice in a file is no run.
    bool complete() const;
    // Why it is not: "stopped after step 500 of 1390"; "" for a complete run.
    std::string incomplete_reason() const;
};

// A line that looks like a step line and could not be read as one.
struct UnplacedLine {
    int64_t number = 0;  // counted from 1
    std::string text;    // at most kShownBytes of it
    static constexpr size_t kShownBytes = 160;
};

// One file.
struct RunLog {
    std::filesystem::path path;
    uint64_t bytes = 0, content_hash = 0;  // XXH64 of the whole file
    int64_t lines = 0;
    bool binary = false;           // has NUL bytes: nothing of it was read as text
    bool unfinished_line = false;  // ends in a part of a step line without '\n': still being written, or cut
    bool ends_with_newline = true;
    int64_t lines_in_source = 0;       // step lines quoted in the program's source: of no run
    int64_t repeated_validations = 0;  // lines whose step, loss and time stand further up already: left out
    int64_t unplaced_count = 0;
    std::vector<UnplacedLine> unplaced;  // the first kShownUnplaced of them
    std::vector<Run> runs;
    static constexpr size_t kShownUnplaced = 10;
};

struct ParseOptions {
    bool keep_clock = true;  // fill Run::clock
    bool keep_train_losses = false;
};

// Reads a log in pieces of constant size. Throws UserError (path, system's reason) where it cannot be read.
RunLog read_run_log(const std::filesystem::path& path, const ParseOptions& options = {});

}  // namespace speedrun
