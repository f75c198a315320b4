#include "plan/step_floor.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <numeric>
#include <utility>

#include "optim/rule.h"
#include "plan/graph_work.h"
#include "plan/rank_memory.h"
#include "plan/throughput.h"
#include "util/shape.h"

namespace speedrun {
namespace {

using Rule = OptimParamConfig::Rule;

// Bytes that the updates of one rank move.
double update_traffic(const Config& config, const std::map<std::string, int64_t>& unit_bytes,
                      const Ownership& due, int64_t rank) {
    double bytes = 2 * static_cast<double>(optimizer_state_bytes(unit_bytes, due, rank));
    for (const Bucket& bucket : due.buckets) {
        const int64_t value = value_size(config, config.model.param(bucket.pieces.front().param));
        bytes +=
            static_cast<double>(4 * value * bucket.units[static_cast<size_t>(rank)] * bucket.unit_elements);
    }
    return bytes;
}

// Seconds of one of a bucket's collectives: of `bytes` in all, of which one rank owns `share`.
std::pair<double, double> collective_time(double bytes, double share, int64_t ranks, const Machine& machine,
                                          int64_t ranks_per_node) {
    const int64_t local = std::min(ranks, ranks_per_node), nodes = (ranks + local - 1) / local;
    const auto part = [](int64_t n) { return static_cast<double>(n - 1) / static_cast<double>(n); };
    const double inside = bytes * part(local) / machine.link_bandwidth;
    // What one rank owns goes out of its node by its own wire.
    const double carried = std::max(share, bytes / static_cast<double>(local));
    const double between = carried * part(nodes) / machine.network_bandwidth;
    const double latency = machine.launch + static_cast<double>(local - 1) * machine.link_hop +
                           static_cast<double>(nodes - 1) * machine.network_hop;
    return {std::max(inside, between), latency};
}

}  // namespace

double optimizer_flop(const Config& config, const Ownership& ownership) {
    std::map<std::string, double> unit_flop;
    for (const OptimParamConfig& row : config.optimizer.params) {
        const ParamConfig& param = config.model.param(row.param);
        if (row.rule == Rule::matrix)
            unit_flop[row.param] = make_meta_rule(config.optimizer, row, param, at::kFloat)->cost(true).flop /
                                   static_cast<double>(param.shape[0]);
    }
    double most = 0;
    for (int64_t rank = 0; rank < ownership.world_size; ++rank) {
        double flop = 0;
        for (const Bucket& bucket : ownership.buckets)
            for (const Piece& piece : bucket.owned_by(rank))
                flop += static_cast<double>(piece.end - piece.begin) * unit_flop[piece.param];
        most = std::max(most, flop);
    }
    return most;
}

double StepFloor::overlapped() const {
    return std::max({compute(), memory, network()});
}

double StepFloor::in_turn() const {
    return std::max(compute(), memory) + network();
}

const char* StepFloor::limit() const {
    if (overlapped() == network()) return bandwidth > latency ? "network bandwidth" : "network latency";
    if (overlapped() == memory) return "memory";
    return forward_backward > optimizer ? "compute" : "optimizer";
}

StepFloor step_floor(const Config& config, const Graph& graph, const Ownership& ownership,
                     const StepSettings& settings, const Machine& machine, int64_t ranks_per_node) {
    const int64_t ranks = ownership.world_size;
    const double passes =
        static_cast<double>(settings.batch_tokens) / static_cast<double>(ranks * settings.row_tokens);
    const double fp8_flops = machine.fp8_flops > 0 ? machine.fp8_flops : machine.bf16_flops;
    const bool fp8_head = config.numerics.lm_head.format == NumericsConfig::Head::Format::fp8;
    const Work work = pass_work(graph, pass_shape(config, settings));
    StepFloor floor;
    floor.forward_backward =
        passes * ((work.flop - work.fp8_flop) / machine.bf16_flops + work.fp8_flop / fp8_flops +
                  work.head_flop / (fp8_head ? fp8_flops : machine.bf16_flops));
    floor.optimizer = optimizer_flop(config, ownership) / machine.bf16_flops;
    double update = 0;
    Ownership due = ownership;
    std::erase_if(due.buckets, [&](const Bucket& bucket) { return !steps(bucket, settings); });
    const auto unit_bytes = unit_state_bytes(config);
    for (int64_t rank = 0; rank < ranks; ++rank)
        update = std::max(update, update_traffic(config, unit_bytes, due, rank));
    floor.memory = (passes * work.bytes() + update) / machine.memory_bandwidth;
    if (ranks == 1) return floor;
    const auto traffic = bucket_traffic(config, graph, ownership);
    const auto add = [&](double bytes, double share) {
        const auto [bandwidth, latency] = collective_time(bytes, share, ranks, machine, ranks_per_node);
        floor.bandwidth += bandwidth;
        floor.latency += latency;
    };
    for (size_t i = 0; i < traffic.size(); ++i) {
        const Bucket& bucket = ownership.buckets[i];
        if (!steps(bucket, settings)) continue;
        const double share = bucket.replicated ? 1 / static_cast<double>(ranks)
                                               : static_cast<double>(std::ranges::max(bucket.units)) /
                                                     static_cast<double>(bucket.total_units());
        for (const int64_t bytes : {traffic[i].gradient_bytes, traffic[i].value_bytes})
            add(static_cast<double>(bytes), share * static_cast<double>(bytes));
    }
    add(0, 0);  // the losses
    return floor;
}

StepSettings largest_step(const Config& config, bool adam_steps) {
    const Stage* largest = nullptr;
    for (const Stage& stage : config.schedule.stages)
        if (stage.start < config.schedule.total_steps() &&
            (!largest || stage.batch_tokens >= largest->batch_tokens))
            largest = &stage;
    StepSettings settings = settings_at(config, largest->start);
    settings.adam_steps = adam_steps;
    return settings;
}

StepFloor mean_floor(const Config& config, const Graph& graph, const Ownership& ownership,
                     const Machine& machine, int64_t ranks_per_node) {
    const double share = 1 / static_cast<double>(config.optimizer.adam.every_n_steps);
    const auto floor = [&](bool adam) {
        return step_floor(config, graph, ownership, largest_step(config, adam), machine, ranks_per_node);
    };
    const StepFloor with = floor(true), without = floor(false);
    StepFloor mean;
    for (const auto part : {&StepFloor::forward_backward, &StepFloor::optimizer, &StepFloor::memory,
                            &StepFloor::bandwidth, &StepFloor::latency})
        mean.*part = share * with.*part + (1 - share) * without.*part;
    return mean;
}

}  // namespace speedrun
