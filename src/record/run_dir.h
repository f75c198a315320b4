#pragma once
#include <cstdint>
#include <filesystem>

namespace speedrun {

// The directory a run leaves its outputs in.
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

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path config() const { return path_ / "config.json"; }
    std::filesystem::path log() const { return path_ / "log.txt"; }
    std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
    std::filesystem::path curve() const { return path_ / "loss.svg"; }
    std::filesystem::path weights() const { return path_ / "weights.safetensors"; }

  private:
    explicit RunDir(std::filesystem::path path) : path_(std::move(path)) {}
    std::filesystem::path path_;
};

}  // namespace speedrun
