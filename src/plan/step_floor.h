#pragma once
// The least time that a step can take on a machine, by what it must at least compute, move and send.
#include <string>
#include <vector>

#include "config/config.h"
#include "optim/ownership.h"
#include "optim/schedule.h"
#include "plan/machine.h"
#include "plan/traffic.h"

namespace speedrun {

// FLOP of attention's forward and backward for one token, in documents of settings.max_seq_len: 12 for each
// visible key and channel (QK^T and PV, and two products for the gradient of each).
double attention_flop_per_token(const ModelConfig& model, const StepSettings& settings);

// FLOP of the head's three products for one token: those that FP8 runs.
double head_flop_per_token(const ModelConfig& model);

// FLOP of the updates' matrix products of the rank that has most of them: ranks own whole matrices.
double optimizer_flop(const Config& config, const Ownership& ownership);

// Seconds of a step of the busiest rank.
struct StepFloor {
    double forward_backward = 0, optimizer = 0;  // arithmetic
    double memory = 0;                           // traffic between processor and memory
    double bandwidth = 0, latency = 0;           // of collectives

    double compute() const { return forward_backward + optimizer; }
    double network() const { return bandwidth + latency; }
    double overlapped() const;  // all three at once: the floor
    double in_turn() const;     // collectives with nothing beside them
    const char* limit() const;  // which of the five holds the floor up
};

struct Layout {
    int64_t ranks_per_node = 1;
    int64_t micro_batch_tokens = 0;
    int64_t activations_per_token = 0;  // bytes, of activation_bytes_per_token()
};

// What counts as traffic: the weights that are multiplied read in forward and in backward of each
// micro-batch, their gradients read and written; each activation written and read in forward and in backward;
// and of the rank's share masters, gradients and optimizer state read and written. The collectives are
// NCCL's: inside a node each value passes each rank, between nodes each rank carries 1/ranks_per_node of it.
StepFloor step_floor(const Config& config, const Ownership& ownership, const StepSettings& settings,
                     const Machine& machine, const Layout& layout);

// The floor of a step on average over Adam's cadence, in the stage with the largest batch (the last of them).
StepFloor mean_floor(const Config& config, const Ownership& ownership, const Machine& machine,
                     const Layout& layout);
// Settings of a step of that stage, with or without Adam.
StepSettings largest_step(const Config& config, bool adam_steps);

}  // namespace speedrun
