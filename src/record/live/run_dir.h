#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "util/folder_lock.h"

namespace speedrun {

// What a run leaves in its directory.
namespace run_files {
inline constexpr const char* config = "config.json";
inline constexpr const char* log = "log.txt";
inline constexpr const char* metrics = "metrics.jsonl";
inline constexpr const char* curve = "loss.svg";
inline constexpr const char* weights = "weights.safetensors";
inline constexpr const char* status = "status.json";
inline constexpr const char* checkpoints = "checkpoints";
inline constexpr const char* seen_by_all =
    ".seen-by-all-";  // for a moment: by which ranks see that they share it
}  // namespace run_files

// The directory a run leaves its outputs in. One process at a time holds it. It is claimed first, which
// changes nothing in it, and begun once everything else that could refuse the run has been looked at: what
// was there goes then. A claim that is given up removes the folders that it made.
class RunDir {
  public:
    enum class Former {
        none,     // the directory must hold no run
        replace,  // the outputs of one that is there are removed
        go_on     // it holds the run that goes on, all of which stays
    };
    struct Options {
        Former former = Former::none;
        int64_t expected_bytes = 0;  // what the run will write; so much must be free
    };
    // Creates `path` and its parents where they are missing, proves that a file can be written there and that
    // `expected_bytes` are free. UserError otherwise, or where a run is there that must not be.
    static RunDir claim(const std::filesystem::path& path, const Options& options);

    ~RunDir();
    RunDir(RunDir&& other) noexcept = default;
    RunDir& operator=(RunDir&&) = delete;

    // Removes what the claim allowed to, and what processes that were killed left unfinished.
    void begin();

    const std::filesystem::path& path() const { return lock_.folder().path(); }
    const HeldFolder& folder() const { return lock_.folder(); }
    std::string name() const;  // the last part of the path, to call the run by

    std::filesystem::path config() const { return path() / run_files::config; }
    std::filesystem::path log() const { return path() / run_files::log; }
    std::filesystem::path metrics() const { return path() / run_files::metrics; }
    std::filesystem::path status() const { return path() / run_files::status; }
    std::filesystem::path checkpoints() const { return path() / run_files::checkpoints; }
    // Where the directory is now: it may have been moved while the run was at it. UserError where it is gone.
    std::filesystem::path curve() const { return folder().where() / run_files::curve; }
    std::filesystem::path weights() const { return folder().where() / run_files::weights; }

  private:
    RunDir(const std::filesystem::path& path, const Options& options,
           std::vector<std::filesystem::path> made);

    FolderLock lock_;
    Options options_;
    std::vector<std::filesystem::path> made_;  // the folders that claim() created, the last first
};

}  // namespace speedrun
