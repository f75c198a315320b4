#pragma once
// How far more ranks help, on paper.
#include <string>
#include <vector>

#include "plan/step_floor.h"

namespace speedrun {

// A count of ranks in the table.
struct ScalingRow {
    int64_t ranks = 1;
    int64_t micro_batch_tokens = 0, accumulation = 0;
    bool shortened = false;  // needs smaller micro-batches than the config's
    StepFloor floor;
    double efficiency = 1;  // of ideal scaling from one rank, both at their floors
};

// 1, 2, 4, ... up to `most`, as long as the batch of every stage divides into whole rows. Where a rank's
// share is less than the config's micro-batch, micro-batches shrink to it.
std::vector<ScalingRow> scaling_table(const Config& config, const Machine& machine, int64_t ranks_per_node,
                                      int64_t most = 1024);

// The last row whose doubling still takes a fifth off the step.
size_t last_worthwhile(const std::vector<ScalingRow>& rows);

// Where it stops and why, in a sentence or two.
std::string scaling_text(const Config& config, const std::vector<ScalingRow>& rows, const Machine& machine,
                         int64_t ranks_per_node);

// Tokens of every stage's batch have this divisor in common.
int64_t common_batch_tokens(const Config& config);

}  // namespace speedrun
