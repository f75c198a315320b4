#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/loader.h"
#include "data/prefetch.h"
#include "model/gpt.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "train/clock.h"
#include "train/interrupt.h"
#include "train/reporter.h"
#include "util/error.h"

namespace speedrun {

struct RunOptions {
    int64_t diagnostics_every = 0;  // steps between RMS and condition numbers per matrix; 0: never
};

enum class RunEnd { finished, interrupted };

// The training loss became NaN or infinite. Nothing of that step has reached the weights.
class NonFiniteLoss : public UserError {
  public:
    using UserError::UserError;
};

// Windows and YaRN state of a step, as the model wants them.
AttentionSettings attention_settings(const StepSettings& settings);

// Shapes of every training step of a run, for the loaders.
std::vector<StepShape> step_shapes(const Config& config);

// Mean validation loss over data.val_tokens.
double validate(GPT& model, const ValLoader& loader, const AttentionSettings& settings);

// Sum of gradients over a step's micro-batches, then division, as objective.accumulation says. Returns the
// mean loss per token. Throws UserError where the loss is not finite, before any gradient is used.
double accumulate_gradients(GPT& model, const Config& config, const std::vector<Batch>& batches,
                            const StepSettings& settings);

// One run from its initial weights to its last validation. `model` holds the initial weights.
class Trainer {
  public:
    Trainer(const Config& config, GPT& model, std::vector<std::filesystem::path> train_shards,
            const std::vector<std::filesystem::path>& val_shards, RunOptions options = {});

    // Throws NonFiniteLoss with the step and the last good values.
    RunEnd run(Reporter& reporter, Interrupt& interrupt);

  private:
    void warm_up();
    void train_step(const StepSettings& settings, Reporter& reporter);
    // Updates the weights; where diagnostics are due, returns "rms/NAME", "update_rms/NAME",
    // "condition/NAME".
    std::map<std::string, double> optimizer_step(const StepSettings& settings);
    void validate_now(const StepSettings& settings, Reporter& reporter);

    const Config& config_;
    GPT& model_;
    Optimizer optimizer_;
    std::vector<std::filesystem::path> train_shards_;
    std::unique_ptr<PrefetchingLoader> loader_;
    ValLoader val_loader_;
    RunOptions options_;
    TrainClock clock_;
    int64_t tokens_ = 0;
    double last_loss_ = 0;
};

}  // namespace speedrun
