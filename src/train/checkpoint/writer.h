#pragma once
#include <atomic>
#include <filesystem>
#include <future>
#include <span>
#include <string>
#include <vector>

#include "train/checkpoint/keep.h"
#include "train/checkpoint/layout.h"
#include "train/checkpoint/manifest.h"
#include "util/held_folder.h"

namespace speedrun {

// One rank's share of the work of writing checkpoints, in a thread. The ranks of a job all write parts of the
// same files; when none of them is busy any more, rank 0 commits: the checkpoint appears under its name
// whole, or not at all.
class CheckpointWriter {
  public:
    struct Options {
        std::filesystem::path folder;  // of the run's checkpoints, in the run's directory, which is there
        int64_t rank = 0;
        std::string config_json;  // becomes config.json in each checkpoint
        std::string token;  // the same on all ranks, and another for every run: marks what is unfinished
        KeepRule keep;
    };
    explicit CheckpointWriter(Options options);
    ~CheckpointWriter();
    CheckpointWriter(const CheckpointWriter&) = delete;
    CheckpointWriter& operator=(const CheckpointWriter&) = delete;

    // Copies this rank's state, and returns; the thread writes the copy. Not while busy(). The first removes
    // what runs before left unfinished.
    void begin(const CheckpointLayout& layout, CheckpointManifest manifest);
    // Whether the thread has work. Once it has not, error() says what went wrong, "" if nothing did.
    bool busy() const;
    std::string error();
    void wait();

    // On rank 0, when every rank's part is on disk. `ranks`: how many there are. What the run's log and
    // metrics have so far is on disk before the checkpoint that counts on it appears.
    void commit(int64_t ranks);
    // On rank 0, when some rank failed: removes what was written.
    void discard();

    // "step_00001960" in the run's folder.
    std::filesystem::path path_of(int64_t step) const;

  private:
    void take_snapshot();
    void run(void (CheckpointWriter::*work)());
    void write_part();
    void publish();
    void remove_unfinished() const;
    void require_parts() const;
    void sync_logs() const;
    std::filesystem::path temporary() const;
    std::filesystem::path part(int64_t rank) const;

    Options options_;
    HeldFolder run_dir_;
    bool tidied_ = false;
    int64_t ranks_ = 1;
    CheckpointLayout layout_;
    CheckpointManifest manifest_;
    std::vector<std::byte> snapshot_;  // of the extents, each as far into a block as in its file
    std::vector<std::span<const std::byte>> copies_;  // where in it each is
    std::future<void> work_;
    std::string error_;
};

}  // namespace speedrun
