#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace speedrun {

// status.json: what a run is doing, for tools that poll.
struct RunStatus {
    std::string state;                  // "running", "finished", "interrupted", "diverged" (a NaN), "failed"
    int64_t step = 0, total_steps = 0;  // steps finished
    double train_time_ms = 0;
    std::optional<double> train_loss, val_loss;  // the last ones, nats per token
    std::optional<double> eta_seconds;
    std::string checkpoint;  // the last one written, "" if none
    std::string message;     // why a run failed
};

// One JSON object: the members above, and process, host, and "updated" (seconds since 1970).
std::string to_json(const RunStatus& status);

// Replaces `path`, whole or not at all for whoever reads it. Not synced to disk: it is news, not evidence.
// Errors are ignored: a full disk must not end a run over its status.
void write_status(const std::filesystem::path& path, const RunStatus& status);

// Where the file says "running" still: "failed", and why. For one who knows no more of the run than the file
// does.
void write_failure(const std::filesystem::path& path, const std::string& message);

// The state that a run left there; "" where there is none to be read.
std::string read_state(const std::filesystem::path& path);

}  // namespace speedrun
