#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "config/config.h"
#include "config/schedule.h"
#include "data/loader.h"
#include "data/prefetch.h"
#include "model/gpt.h"
#include "optim/optimizer.h"
#include "train/checkpoint/checkpointer.h"
#include "train/checkpoint/load.h"
#include "train/clock.h"
#include "train/grad_accum.h"
#include "train/interrupt.h"
#include "train/rank_costs.h"
#include "train/reporter.h"
#include "util/error.h"

namespace speedrun {

struct RunOptions {
    int64_t diagnostics_every = 0;         // steps between RMS and condition numbers per matrix; 0: never
    std::function<void(int64_t)> at_step;  // told the index of each step as it begins
    std::filesystem::path checkpoints;     // the run's folder of them; empty: none are written
    // For them: what this program was built of, what the shards are, the threads of all ranks.
    std::string build;
    std::vector<ShardIdentity> train_shards, val_shards;
    int64_t threads = 1;
};

enum class RunEnd { finished, interrupted };

// The training loss or a gradient became NaN or infinite. Nothing of that step has reached the weights.
class NonFiniteLoss : public UserError {
  public:
    using UserError::UserError;
};

// Mean validation loss over data.val_tokens, the ranks sharing the work. The same bits whatever their number.
double validate(GPT& model, const ValLoader& loader, const StepSettings& settings,
                Communicator& communicator);
// The same; none where `stop`, which is asked before each micro-batch, says so on any of the ranks.
std::optional<double> validate_unless(const std::function<bool()>& stop, GPT& model, const ValLoader& loader,
                                      const StepSettings& settings, Communicator& communicator);

// One run from its initial weights to its last validation, on every rank of the communicator at once. Rank
// 0's `model` holds the initial weights; the others receive them.
class Trainer {
  public:
    Trainer(const Config& config, GPT& model, Communicator& communicator,
            std::vector<std::filesystem::path> train_shards,
            const std::vector<std::filesystem::path>& val_shards, RunOptions options = {});

    // Before run(): puts everything back to where it was when `checkpoint` was written. All ranks call it.
    void resume(const Checkpoint& checkpoint);

    // A run is reported by one rank; `reporter` is null on the others. Ends on every rank after the same
    // step or in the same validation, by a signal to any of them too. Throws NonFiniteLoss, on all, with the
    // step and the last good values.
    RunEnd run(Reporter* reporter, Interrupt& interrupt);

    // After run(): brings the whole of the weights to this rank. All ranks call it.
    void gather_weights() { optimizer_.gather_values(); }
    // Of the steps of run(), on this rank.
    RankCosts costs() const;
    // The first of the training shards, up to that of the last step: no other has been used.
    std::span<const std::filesystem::path> train_shards_read() const;

  private:
    void warm_up();
    // Whether a rank was told to stop.
    bool train_step(const StepSettings& settings, Reporter* reporter, Interrupt& interrupt);
    // Tells the optimizer which rows of a table these micro-batches give a gradient, where it sends rows.
    void look_up(const std::vector<Batch>& batches);
    // Of this rank's micro-batches; returns their sums of losses. Reductions may be on their way afterwards.
    std::vector<at::Tensor> gradients(const std::vector<Batch>& batches, const StepSettings& settings);
    // What the ranks tell each other in every step: their losses, in the order of its rows, whether any of
    // them was told to stop, and what checkpoints need.
    struct Agreed {
        double mean_loss = 0;
        bool stop = false;
        bool finite = true;  // the loss and every rank's gradients
    };
    Agreed agree(const std::vector<at::Tensor>& losses, const StepSettings& settings, Interrupt& interrupt);
    // After a step: saves the state where that is due; before the run stops, until it is on disk.
    void save_state(const StepSettings& settings, Reporter* reporter, bool stop);
    void save_and_stop(int64_t steps_finished, bool adam_stepped, Reporter* reporter);
    CheckpointManifest manifest(int64_t steps_finished, bool adam_stepped, const Reporter* reporter) const;
    void report_checkpoints(Reporter* reporter);
    // What runtime.non_finite says: throws NonFiniteLoss, or forgets the step.
    void skip_step(const StepSettings& settings, const Agreed& agreed, Reporter* reporter);
    // Updates the weights; where diagnostics are due, rank 0 returns "rms/NAME", "update_rms/NAME",
    // "condition/NAME".
    std::map<std::string, double> optimizer_step(const StepSettings& settings);
    // False where a signal came meanwhile: the run then stops with the state that was being validated.
    bool validate_now(const StepSettings& settings, Reporter* reporter, Interrupt& interrupt);
    RunEnd stop_in_validation(int64_t steps_finished, Reporter* reporter);

    const Config& config_;
    GPT& model_;
    Communicator& communicator_;
    Optimizer optimizer_;
    std::vector<std::filesystem::path> train_shards_;
    std::unique_ptr<PrefetchingLoader> loader_;
    ValLoader val_loader_;
    RunOptions options_;
    TrainClock clock_;
    CommStats before_;  // what communication had cost when the steps began
    int64_t steps_ = 0, tokens_ = 0, skipped_ = 0;
    int64_t first_step_ = 0;  // where resume() put the run
    double last_loss_ = 0;
    std::optional<double> last_val_loss_;
    std::optional<Checkpointer> checkpointer_;
};

}  // namespace speedrun
