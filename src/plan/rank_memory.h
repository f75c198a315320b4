#pragma once
// Bytes of memory that a rank needs, from the config alone: no model is made.
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"
#include "model/graph/graph.h"
#include "optim/ownership.h"

namespace speedrun {

// Bytes of an element of a parameter's masters and gradients; and of what forward reads, which others gather.
int64_t value_size(const Config& config, const ParamConfig& param);
int64_t used_size(const Config& config, const Graph& graph, const ParamConfig& param);

// Optimizer::state_bytes() of `rank`.
int64_t optimizer_state_bytes(const Config& config, const Ownership& ownership, int64_t rank);

// Bytes of state of one unit of each parameter, as its rule says; and from them the same for many ranks.
std::map<std::string, int64_t> unit_state_bytes(const Config& config);
int64_t state_bytes(const Bucket& bucket, const std::map<std::string, int64_t>& unit_bytes);  // of all ranks
int64_t optimizer_state_bytes(const std::map<std::string, int64_t>& unit_bytes, const Ownership& ownership,
                              int64_t rank);

// What `rank` copies for a checkpoint, to be written beside the run: its masters and state, and where
// gradients are waiting for Adam, those (CheckpointLayout::extent_bytes()).
int64_t checkpoint_bytes(const Config& config, const Ownership& ownership, int64_t rank,
                         bool pending_gradients);

// GPT::activation_bytes() after training micro-batches of each of these lengths and validation ones of
// `val_tokens`: the model's own passes, on tensors that have shapes but no memory. `val_tokens` may be 0.
int64_t activation_bytes(const Config& config, std::span<const int64_t> tokens, int64_t val_tokens);
// Of the passes that `rank` makes in a run.
int64_t activation_bytes_of_rank(const Config& config, int64_t rank);

// Tokens of the rows of every stage, each length once, ascending.
std::vector<int64_t> row_lengths(const Config& config);

// Which operators run: those for CPUs keep packed operands and chunks of logits, those for GPUs the logits.
enum class Operators { cpu, gpu };

// At the highest point of a run, by what it is for.
struct RankMemory {
    int64_t masters = 0, copies = 0;  // weights, and those that matmuls read in another dtype or in 8 bits
    int64_t gradients = 0;
    int64_t optimizer_state = 0;
    int64_t activations = 0;     // and their gradients, of a micro-batch
    int64_t tables = 0;          // rotary embedding, prefixes of tokens
    int64_t operators = 0;       // packed operands, chunks of logits
    int64_t optimizer_work = 0;  // temporaries of an update
    int64_t warm_up = 0;         // the weights to go back to after untimed steps
    int64_t batches = 0;         // steps of tokens that lie ready
    int64_t communication = 0;   // staging of collectives, and rows of gradients that ranks send each other
    int64_t program = 0;         // heap that the allocator keeps, threads, generated code
    int64_t checkpoint = 0;      // copy of what the rank saves; on GPUs it is in the host's memory
    int64_t peak() const {
        return masters + copies + gradients + optimizer_state + activations + tables + operators +
               optimizer_work + warm_up + batches + communication + program + checkpoint;
    }
};

// Of every rank, in the stage that needs most. Not counted: the program itself and its libraries, code they
// load as it is first used, the pages of shards (files, which the ranks of a host share).
std::vector<RankMemory> rank_memory(const Config& config, const Graph& graph, const Ownership& ownership,
                                    Operators operators);

}  // namespace speedrun
