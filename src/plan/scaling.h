#pragma once
// How far more ranks help, on paper.
#include <string>
#include <vector>

#include "plan/step_floor.h"

namespace speedrun {

// A count of ranks in the table.
struct ScalingRow {
    int64_t ranks = 1;
    int64_t rows = 0;          // of a batch
    int64_t row_tokens = 0;    // in the stage with the largest batch
    int64_t accumulation = 0;  // rows of a rank
    bool split = false;        // needs more and shorter rows than the config's
    StepFloor floor;
    double efficiency = 1;  // of ideal scaling from one rank, both at their floors
};

// 1, 2, 4, ... up to `most`, as long as the batch of every stage divides into whole rows. Where a rank's
// share is less than a row, there are more and shorter rows.
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
