#include "app/plan/run_plan.h"

#include <algorithm>
#include <span>
#include <utility>

#include "data/step_shapes.h"
#include "plan/memory_check.h"

namespace speedrun {
namespace {

Operators operators_of(const Machine& machine) {
    return machine.gpu ? Operators::gpu : Operators::cpu;
}

int64_t fullest(std::span<const RankMemory> ranks) {
    int64_t most = 0;
    for (const RankMemory& memory : ranks) most = std::max(most, memory.peak());
    return most;
}

}  // namespace

RunPlan make_plan(Config config, std::string file, int64_t ranks, int64_t ranks_per_node,
                  const Machine& machine) {
    const int64_t accumulation = grad_accum_steps(config, ranks);
    RunPlan plan{.config = std::move(config),
                 .file = std::move(file),
                 .ranks_per_node = ranks_per_node,
                 .machine = machine,
                 .accumulation = accumulation,
                 .graph = {},
                 .ownership = {},
                 .traffic = {},
                 .memory = {},
                 .without_adam = {},
                 .with_adam = {},
                 .scaling = {},
                 .fewest_rows = {},
                 .price = {}};
    plan.graph = compile(plan.config);
    plan.ownership = plan_ownership(plan.config, ranks);
    plan.traffic = bucket_traffic(plan.config, plan.graph, plan.ownership);
    plan.memory = rank_memory(plan.config, plan.graph, plan.ownership, operators_of(machine));
    const auto floor = [&](bool adam) {
        return step_floor(plan.config, plan.graph, plan.ownership, largest_step(plan.config, adam), machine,
                          ranks_per_node);
    };
    plan.without_adam = floor(false);
    plan.with_adam = floor(true);
    plan.scaling = scaling_table(plan.config, machine, ranks_per_node);
    plan.fewest_rows = fewest_rows(plan.config, plan.graph, plan.ownership, operators_of(machine),
                                   [&](std::span<const RankMemory> all) {
                                       return fullest(all) + machine.reserved_bytes <= machine.memory_bytes;
                                   });
    return plan;
}

Price price_of(const RunPlan& plan, double gpu_hour, int64_t runs) {
    constexpr double hour = 3600;
    Price price{.gpu_hour = gpu_hour, .runs = runs};
    for (int64_t step = 0; step < plan.config.schedule.total_steps(); ++step)
        price.run_seconds += step_floor(plan.config, plan.graph, plan.ownership,
                                        settings_at(plan.config, step), plan.machine, plan.ranks_per_node)
                                 .overlapped();
    price.run = price.run_seconds / hour * static_cast<double>(plan.ownership.world_size) * gpu_hour;
    return price;
}

size_t fullest_rank(const RunPlan& plan) {
    const auto fullest = std::ranges::max_element(plan.memory, {}, &RankMemory::peak);
    return static_cast<size_t>(fullest - plan.memory.begin());
}

int64_t used_memory(const RunPlan& plan) {
    return plan.memory[fullest_rank(plan)].peak() + plan.machine.reserved_bytes;
}

}  // namespace speedrun
