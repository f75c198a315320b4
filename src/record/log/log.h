#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "record/log/data_shard.h"
#include "util/line_file.h"

namespace speedrun {

// Everything the log's header says about a run. Empty texts and lists are left out of the header.
struct RunDescription {
    std::string date;  // log_date() of the start
    std::string command_line;
    std::string config_json;  // the whole resolved config
    std::string config_hash;  // sha-256 of config_json, hex
    std::string commit;  // git commit the executable was built from, with " + uncommitted changes" where so
    std::string build;   // build type, flags, compiler
    std::vector<std::pair<std::string, std::string>> libraries;  // name, version
    std::string hardware;                                        // hardware_table()
    std::vector<std::string> train_shards, val_shards;           // paths, in the order they would be read
    uint64_t seed = 0;
    int64_t world_size = 1;
    int64_t threads = 0;
};

// The log in the track's format: what train_gpt.py's print0 writes, with the resolved config in the place of
// the Python source. Sections are parted by lines of 100 '='.
class TrackLog {
  public:
    // Creates `path`. Every member throws UserError where the file cannot be written.
    explicit TrackLog(const std::filesystem::path& path) : file_(path) {}
    // Goes on with the log of an earlier part of the run after its first `keep` bytes.
    TrackLog(const std::filesystem::path& path, uint64_t keep) : file_(path, keep) {}

    void header(const RunDescription& run);
    // A line of its own, for anything else worth keeping (GEMM peak, "stopped by the user").
    void line(std::string_view text) { file_.line(text); }
    void step(int64_t step, int64_t total_steps, double train_time_ms);
    void validation(int64_t step, int64_t total_steps, double val_loss, double train_time_ms);
    void peak_memory(int64_t allocated_bytes, int64_t reserved_bytes);
    // One line a file. Comes after the steps: reading gigabytes must delay none of them.
    void data(std::span<const DataShard> shards);

    uint64_t bytes() const { return file_.bytes(); }

  private:
    LineFile file_;
};

// "step:12/1960 train_time:842ms step_avg:70.19ms": after the `step`-th step (counted from 1) of
// `total_steps`.
std::string step_line(int64_t step, int64_t total_steps, double train_time_ms);

// "step:1960/1960 val_loss:3.2784 train_time:137582ms step_avg:70.19ms". Validation may come before any step;
// step_avg is then the time divided by 1, as the track has it.
std::string validation_line(int64_t step, int64_t total_steps, double val_loss, double train_time_ms);

// "Fri Jul 17 13:28:52 2026": local time, as nvidia-smi writes it above its table.
std::string log_date(std::chrono::system_clock::time_point time);

// "peak memory allocated: 30220 MiB reserved: 38672 MiB", each rounded down.
std::string peak_memory_line(int64_t allocated_bytes, int64_t reserved_bytes);

}  // namespace speedrun
