#pragma once
#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "train/checkpoint/writer.h"

namespace speedrun {

// When checkpoints are taken, and how the ranks agree on it. Ranks exchange a few numbers in every step
// anyway; what checkpoints need to agree on travels with them, so that none waits for another.
class Checkpointer {
  public:
    struct Run {
        const Config& config;
        const ParameterTable& parameters;
        const Optimizer& optimizer;
        Communicator& communicator;
        std::filesystem::path folder;  // of the run's checkpoints
    };
    explicit Checkpointer(const Run& run);

    // What one rank brings to an agreement, and their sum over the ranks.
    struct Signs {
        double save = 0;     // a wish for a checkpoint
        double pending = 0;  // this rank's part is being written
        double failed = 0;   // this rank's part could not be written
    };
    Signs signs(bool save);
    void agreed(const Signs& sum);

    // Whether the state after this step is to be saved. A checkpoint waits for a step in which Adam steps,
    // after which no gradients are pending.
    bool wants(int64_t steps_finished, bool adam_stepped);
    // Copies the state; it is written while the run goes on, and before that what is still being written is
    // finished. All ranks call it.
    void begin(CheckpointManifest manifest);
    // Finishes what is being written. All ranks call it.
    void drain();

    int64_t last_begun() const {
        return saving_step_;
    }  // steps of the last begin(); 0: none yet, or it failed
    const std::filesystem::path& last_saved() const { return last_saved_; }  // on rank 0; empty: none
    // What has happened since the last call, a line each: on rank 0 what was saved, on any what failed.
    std::vector<std::string> take_notes();
    int64_t failures() const { return failures_; }

  private:
    enum class Phase { idle, parts, commit };

    Run run_;
    CheckpointWriter writer_;
    Phase phase_ = Phase::idle;
    bool wanted_ = false;
    int64_t saving_step_ = 0, failures_ = 0;
    std::chrono::steady_clock::time_point last_;
    std::filesystem::path last_saved_;
    std::vector<std::string> notes_;
};

}  // namespace speedrun
