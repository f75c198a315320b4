#pragma once
// The least time that a step can take on a machine, by what it must at least compute, move and send.
#include <string>
#include <vector>

#include "config/schedule.h"
#include "model/graph/graph.h"
#include "optim/ownership.h"
#include "plan/machine.h"
#include "plan/traffic.h"

namespace speedrun {

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

// What counts as traffic: what the nodes of the graph read and write in each micro-batch; and of the rank's
// share masters, gradients and optimizer state read and written. The collectives are NCCL's: inside a node
// each value passes each rank, between nodes each rank carries 1/ranks_per_node of it.
StepFloor step_floor(const Config& config, const Graph& graph, const Ownership& ownership,
                     const StepSettings& settings, const Machine& machine, int64_t ranks_per_node);

// The floor of a step on average over Adam's cadence, in the stage with the largest batch (the last of them).
StepFloor mean_floor(const Config& config, const Graph& graph, const Ownership& ownership,
                     const Machine& machine, int64_t ranks_per_node);
// Settings of a step of that stage, with or without Adam.
StepSettings largest_step(const Config& config, bool adam_steps);

}  // namespace speedrun
