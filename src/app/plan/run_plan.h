#pragma once
// What `speedrun plan` works out and prints.
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "optim/ownership.h"
#include "plan/machine.h"
#include "plan/rank_memory.h"
#include "plan/scaling.h"
#include "plan/step_floor.h"
#include "plan/traffic.h"

namespace speedrun {

// What the GPUs of a run cost at least: its steps at their floors, without start, warm-up and validations.
struct Price {
    double gpu_hour = 0;     // dollars
    double run_seconds = 0;  // of all steps
    double run = 0;          // dollars
    int64_t runs = 0;        // of an attempt

    double attempt() const { return run * static_cast<double>(runs); }
};

struct RunPlan {
    Config config;
    std::string file;
    int64_t ranks_per_node = 1;
    Machine machine;
    int64_t accumulation = 0;  // micro-batches of a rank in a step
    Graph graph;
    Ownership ownership;
    std::vector<BucketTraffic> traffic;
    std::vector<RankMemory> memory;  // of each rank
    StepFloor without_adam, with_adam;
    std::vector<ScalingRow> scaling;
    std::optional<int64_t> fewest_rows;  // that fit the machine's memory; none: not even rows of one token
    std::optional<Price> price;          // where one of an hour is known
};

// Throws UserError where the batch does not divide over the ranks.
RunPlan make_plan(Config config, std::string file, int64_t ranks, int64_t ranks_per_node,
                  const Machine& machine);

Price price_of(const RunPlan& plan, double gpu_hour, int64_t runs);

// The rank that needs the most memory.
size_t fullest_rank(const RunPlan& plan);
// Bytes of machine memory in use at the peak: the fullest rank's and the reserved ones.
int64_t used_memory(const RunPlan& plan);

std::string plan_text(const RunPlan& plan);
nlohmann::ordered_json plan_json(const RunPlan& plan);

// Settings by step: a line wherever one of them changes or begins or ends to move; with `every` > 0, every so
// many steps instead.
std::string schedule_text(const Config& config, int64_t every);
nlohmann::ordered_json schedule_json(const Config& config, int64_t every);

}  // namespace speedrun
