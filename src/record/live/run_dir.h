#pragma once
#include <cstdint>
#include <filesystem>

#include "util/file_lock.h"

namespace speedrun {

// The directory a run leaves its outputs in. One process at a time holds it.
struct RunDirOptions {
    bool overwrite = false;      // remove the outputs of an earlier run there first
    int64_t expected_bytes = 0;  // what the run will write; so much must be free
};

class RunDir {
  public:
    // Creates `path` and its parents, or takes it as it is where it holds no run, proves that a file can be
    // written and that `expected_bytes` are free. Throws UserError otherwise; nothing of an earlier run is
    // touched before that.
    static RunDir create(const std::filesystem::path& path, const RunDirOptions& options = {});

    // The directory of a run that is to go on. UserError where there is none, or where it cannot be written.
    static RunDir reopen(const std::filesystem::path& path, int64_t expected_bytes);

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path config() const { return path_ / "config.json"; }
    std::filesystem::path log() const { return path_ / "log.txt"; }
    std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
    std::filesystem::path curve() const { return path_ / "loss.svg"; }
    std::filesystem::path weights() const { return path_ / "weights.safetensors"; }
    std::filesystem::path status() const { return path_ / "status.json"; }
    std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }

  private:
    explicit RunDir(std::filesystem::path path) : path_(std::move(path)), lock_(path_) {}
    std::filesystem::path path_;
    FileLock lock_;
};

}  // namespace speedrun
