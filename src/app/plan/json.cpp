
#include "app/plan/run_plan.h"
#include "optim/rule.h"
#include "plan/graph_work.h"
#include "plan/throughput.h"
#include "util/json_document.h"

namespace speedrun {
namespace {

Json machine_json(const Machine& m) {
    return {{"name", m.name},
            {"what", m.what},
            {"bf16_flops", m.bf16_flops},
            {"fp8_flops", m.fp8_flops},
            {"memory_bytes_per_s", m.memory_bandwidth},
            {"link_bytes_per_s", m.link_bandwidth},
            {"network_bytes_per_s", m.network_bandwidth},
            {"memory_bytes", m.memory_bytes},
            {"reserved_bytes", m.reserved_bytes}};
}

Json buckets_json(const RunPlan& plan) {
    Json buckets = Json::array();
    const auto unit_bytes = unit_state_bytes(plan.config);
    for (size_t i = 0; i < plan.ownership.buckets.size(); ++i) {
        const Bucket& bucket = plan.ownership.buckets[i];
        const BucketTraffic& traffic = plan.traffic[i];
        Json owners = Json::array();
        for (int64_t rank = 0; rank < plan.ownership.world_size; ++rank) {
            Json pieces = Json::array();
            for (const Piece& piece : bucket.owned_by(rank))
                pieces.push_back({{"param", piece.param}, {"begin", piece.begin}, {"end", piece.end}});
            owners.push_back(pieces);
        }
        buckets.push_back({{"name", bucket.name},
                           {"rule", rule_name(plan.config.optimizer, bucket.rule)},
                           {"state_bytes", state_bytes(bucket, unit_bytes)},
                           {"unit_elements", bucket.unit_elements},
                           {"owners", owners},
                           {"gradient_bytes", traffic.gradient_bytes},
                           {"gradients_at_most", traffic.at_most},
                           {"value_bytes", traffic.value_bytes},
                           {"reduce_sent", traffic.reduce_sent},
                           {"gather_sent", traffic.gather_sent}});
    }
    return buckets;
}

Json memory_json(const RankMemory& m) {
    return {{"masters", m.masters},
            {"copies", m.copies},
            {"gradients", m.gradients},
            {"optimizer_state", m.optimizer_state},
            {"activations", m.activations},
            {"tables", m.tables},
            {"operators", m.operators},
            {"optimizer_work", m.optimizer_work},
            {"warm_up", m.warm_up},
            {"batches", m.batches},
            {"communication", m.communication},
            {"checkpoint", m.checkpoint},
            {"program", m.program},
            {"peak", m.peak()}};
}

Json floor_json(const StepFloor& f) {
    return {{"forward_backward_s", f.forward_backward},
            {"optimizer_s", f.optimizer},
            {"memory_s", f.memory},
            {"network_bandwidth_s", f.bandwidth},
            {"network_latency_s", f.latency},
            {"floor_s", f.overlapped()},
            {"without_overlap_s", f.in_turn()},
            {"limit", f.limit()}};
}

// What each rank sends: in a step with and without Adam, and on average over a run with its validations.
Json sent_json(const RunPlan& plan) {
    Json ranks = Json::array();
    for (int64_t rank = 0; rank < plan.ownership.world_size; ++rank) {
        const auto step = [&](bool adam) {
            return step_traffic(plan.config, plan.ownership, plan.traffic, largest_step(plan.config, adam),
                                rank)
                .sum();
        };
        ranks.push_back({{"without_adam", step(false)},
                         {"with_adam", step(true)},
                         {"mean_of_run", run_sent(plan.config, plan.graph, plan.ownership, rank) /
                                             plan.config.schedule.total_steps()}});
    }
    return ranks;
}

Json scaling_json(const RunPlan& plan) {
    Json rows = Json::array();
    for (const ScalingRow& row : plan.scaling)
        rows.push_back({{"ranks", row.ranks},
                        {"rows", row.rows},
                        {"row_tokens", row.row_tokens},
                        {"grad_accum_steps", row.accumulation},
                        {"efficiency", row.efficiency},
                        {"step", floor_json(row.floor)}});
    return rows;
}

}  // namespace

Json plan_json(const RunPlan& plan) {
    Json memory = Json::array();
    for (const RankMemory& rank : plan.memory) memory.push_back(memory_json(rank));
    const TokenFlop flop =
        flop_per_token(plan.graph, pass_shape(plan.config, largest_step(plan.config, true)));
    Json out{{"config", plan.file},
             {"config_hash", plan.config.hash},
             {"ranks", plan.ownership.world_size},
             {"ranks_per_node", plan.ranks_per_node},
             {"grad_accum_steps", plan.accumulation},
             {"assumed", machine_json(plan.machine)},
             {"buckets", buckets_json(plan)},
             {"work_order", plan.ownership.work_order},
             {"memory", memory},
             {"sent", sent_json(plan)},
             {"least_sent",
              {{"without_adam", least_sent(plan.ownership, plan.traffic, false)},
               {"with_adam", least_sent(plan.ownership, plan.traffic, true)}}},
             {"flop_per_token", {{"gemm", flop.gemm}, {"head", flop.head}, {"attention", flop.attention}}},
             {"step",
              {{"without_adam", floor_json(plan.without_adam)}, {"with_adam", floor_json(plan.with_adam)}}},
             {"scaling", scaling_json(plan)},
             {"scaling_text", scaling_text(plan.config, plan.scaling, plan.machine, plan.ranks_per_node)}};
    if (plan.fewest_rows) out["fewest_rows"] = *plan.fewest_rows;
    if (plan.price)
        out["price"] = {{"gpu_hour", plan.price->gpu_hour},
                        {"run_seconds", plan.price->run_seconds},
                        {"run", plan.price->run},
                        {"runs", plan.price->runs},
                        {"attempt", plan.price->attempt()}};
    return out;
}

}  // namespace speedrun
