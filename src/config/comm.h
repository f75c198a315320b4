#pragma once
// Buckets: what one reduce-scatter and one all-gather carry.
#include <string>
#include <vector>

#include "config/config.h"

namespace speedrun {

// Entries [begin, end) of a parameter's dimension 0.
struct CommRange {
    std::string param;
    int64_t begin = 0, end = 0;
    bool operator==(const CommRange&) const = default;
};

struct CommBucket {
    std::string name;  // as the config has it
    std::vector<CommRange> ranges;
};

// "embed", "mlp_fc[0:6]", several joined by '+'. Throws NotationError.
CommBucket parse_bucket(const std::string& text, const ModelConfig& model);

// The buckets of a validated config in scatter order; and the indices among them in work order.
std::vector<CommBucket> comm_buckets(const Config& config);
std::vector<size_t> comm_work_order(const Config& config);

// Parameters that buckets join, each run in the order in which its members must lie in memory; parameters
// that have buckets of their own are left out.
std::vector<std::vector<std::string>> contiguous_runs(const Config& config);

// Elements that stay together on one rank: an entry of dimension 0 for matrix rules, a row (or one element of
// a vector) for element rules.
int64_t unit_elements(const ParamConfig& param, OptimParamConfig::Rule rule);

}  // namespace speedrun
