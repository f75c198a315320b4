#pragma once
// Bytes that ranks send one another, from (config, ownership) alone: what CommStats::bytes_sent will count.
#include <cstdint>
#include <vector>

#include "config/schedule.h"
#include "model/graph/graph.h"
#include "optim/ownership.h"

namespace speedrun {

// The two collectives of a bucket.
struct BucketTraffic {
    int64_t gradient_bytes = 0,
            value_bytes = 0;  // of the whole bucket: what reduce-scatter, all-gather carry
    std::vector<int64_t> reduce_sent, gather_sent;  // by rank
    bool at_most = false;  // gradients go by rows: gradient_bytes are those of a rank's rows, and with
                           // reduce_sent what they are where every token of the longest steps has its own
};

// In scatter order. Data goes straight from rank to rank: to reduce, a rank sends all it does not own to the
// owners; to gather, its own share to all others. Summed over the ranks, both are (ranks - 1) times the
// bucket, the least there is. What is replicated has its all_reduce in reduce_sent.
std::vector<BucketTraffic> bucket_traffic(const Config& config, const Graph& graph,
                                          const Ownership& ownership);

// Bytes that `rank` sends to sum `count` numbers of `item` bytes over the ranks.
int64_t all_reduce_sent(int64_t count, int64_t item, int64_t world_size, int64_t rank);

// What a rank tells the others beside its losses of a step: the sum of its gradients, for whether they are
// finite, whether to stop, and three numbers for checkpoints.
inline constexpr int64_t kStepSigns = 5;

// One step of a rank.
struct StepTraffic {
    int64_t reduced = 0, gathered = 0;  // of the buckets whose turn it is
    int64_t losses = 0;                 // the agreement on the step's loss
    int64_t sum() const { return reduced + gathered + losses; }
};
StepTraffic step_traffic(const Config& config, const Ownership& ownership,
                         const std::vector<BucketTraffic>& buckets, const StepSettings& settings,
                         int64_t rank);

// Bytes that the job's ranks send in a step at the least, a rank, where every value reaches every rank once:
// (ranks - 1) / ranks of each bucket's gradients and values.
double least_sent(const Ownership& ownership, const std::vector<BucketTraffic>& buckets, bool adam_steps);

// Rows of the bucket that a rank's tokens look up between two updates of Adam's in the longest steps, at
// most.
int64_t most_rows(const Config& config, const Bucket& bucket, int64_t world_size);

// All steps and validations of a run of `rank`, without what checkpoints send; at most, where gradients go by
// rows.
int64_t run_sent(const Config& config, const Graph& graph, const Ownership& ownership, int64_t rank);

}  // namespace speedrun
