#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"

namespace speedrun {

// Everything that varies by step: a pure function of (config, step).
struct StepSettings {
    int64_t step = 0;
    double lr_scale = 1;         // multiplies every learning rate of adam
    double matrix_lr_scale = 1;  // and of matrices
    double muon_momentum = 0;
    size_t stage = 0;  // of schedule.stages
    int64_t batch_tokens = 0, row_tokens = 0, max_seq_len = 0;
    int64_t window_short = 0, window_long = 0;  // tokens: keys t - w .. t are visible
    int64_t yarn_window = 0;                    // long window, in blocks, that YaRN has been stretched to
    bool adam_steps = false;                    // Adam updates at the end of this step
    std::vector<double> mtp_weights = {1};      // of each token's targets
    std::optional<double> prefix_weight;        // of each target's prefix; none: prefixes are no targets
    bool tied = false;                          // model.input.tied_to is looked up
    bool unties = false;                        // the last step with it
    std::vector<std::string> resting;  // parameters that are not updated, and whose gradients are forgotten
    double lookahead = 0;           // how far the forward runs ahead, in average steps (optimizer.lookahead)
    bool averages = false;          // the weights after this step belong to optimizer.tail_ema
    bool restarts_average = false;  // and are its first
    double readout = 0;             // weight of that average in a validation that precedes this step
    bool validate = false;          // a validation precedes this step (or, at total_steps, ends the run)
    bool trains = true;             // false at total_steps
};

// Settings of `step` in [0, total_steps]; at total_steps: those of the final validation.
StepSettings settings_at(const Config& config, int64_t step);

}  // namespace speedrun
