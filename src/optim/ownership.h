#pragma once
// Which rank owns what: whose optimizer state, update and fp32 master a part of a parameter is.
#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/schedule.h"

namespace speedrun {

// Units [begin, end) of a parameter; a unit is unit_elements(): an entry of dimension 0 for matrix rules, a
// row for element rules.
struct Piece {
    std::string param;
    int64_t begin = 0, end = 0;
    bool operator==(const Piece&) const = default;
};

// What one reduce-scatter and one all-gather carry: `pieces` one after the other in memory, split over the
// ranks in that order.
struct Bucket {
    std::string name;
    OptimParamConfig::Rule rule = OptimParamConfig::Rule::adam;
    int64_t unit_elements = 0;
    std::vector<Piece> pieces;
    std::vector<int64_t> units;  // of each rank
    bool replicated = false;     // each rank has all of them, and gradients go by an all_reduce
    bool by_rows = false;        // gradients go by a RowExchange: sharded_sparse, and there are other ranks

    int64_t total_units() const;
    std::vector<int64_t> counts() const;              // elements of each rank, unless replicated
    std::vector<Piece> owned_by(int64_t rank) const;  // in memory's order; empty where it owns nothing
};

struct Ownership {
    int64_t world_size = 1;
    std::vector<Bucket> buckets;     // in the order in which reductions start
    std::vector<size_t> work_order;  // indices of buckets, in the order in which they are updated
};

// Whether what the bucket carries is updated in this step.
bool steps(const Bucket& bucket, const StepSettings& settings);

// Pure. As train_gpt.py has it, each rank owns ceil(units / world_size) consecutive units of a bucket, the
// last ones fewer or none; nothing is padded.
Ownership plan_ownership(const Config& config, int64_t world_size);

}  // namespace speedrun
