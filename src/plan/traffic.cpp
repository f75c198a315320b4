#include "plan/traffic.h"

#include <algorithm>
#include <numeric>

#include "comm/exchange.h"
#include "plan/rank_memory.h"
#include "plan/step_floor.h"

namespace speedrun {
namespace {

// What a RowExchange sends: a count to every other rank, then rows and their indices.
void add_rows(const Config& config, const Bucket& bucket, int64_t gradient, BucketTraffic& traffic) {
    const int64_t ranks = std::ssize(bucket.units), rows = most_rows(config, bucket, ranks);
    const int64_t row_bytes = bucket.unit_elements * gradient + static_cast<int64_t>(sizeof(int32_t));
    traffic.at_most = true;
    traffic.gradient_bytes = rows * row_bytes;
    for (const int64_t own : bucket.units)
        traffic.reduce_sent.push_back((ranks - 1) * static_cast<int64_t>(sizeof(int64_t)) +
                                      std::min(rows, bucket.total_units() - own) * row_bytes);
}

}  // namespace

int64_t most_rows(const Config& config, const Bucket& bucket, int64_t world_size) {
    const int64_t tokens = largest_step(config, true).batch_tokens / world_size;
    return std::min(bucket.total_units(), tokens * config.optimizer.adam.every_n_steps);
}

std::vector<BucketTraffic> bucket_traffic(const Config& config, const Graph& graph,
                                          const Ownership& ownership) {
    std::vector<BucketTraffic> all;
    for (const Bucket& bucket : ownership.buckets) {
        const ParamConfig& param = config.model.param(bucket.pieces.front().param);
        const int64_t gradient = value_size(config, param), used = used_size(config, graph, param);
        const int64_t elements = bucket.total_units() * bucket.unit_elements, ranks = ownership.world_size;
        BucketTraffic& traffic = all.emplace_back();
        traffic.gradient_bytes = elements * gradient;
        if (bucket.replicated) {
            traffic.value_bytes = traffic.gradient_bytes;  // what an all_reduce gathers
            for (int64_t rank = 0; rank < ranks; ++rank)
                traffic.reduce_sent.push_back(all_reduce_sent(elements, gradient, ranks, rank));
            traffic.gather_sent.assign(static_cast<size_t>(ranks), 0);
            continue;
        }
        if (bucket.by_rows) add_rows(config, bucket, gradient, traffic);
        const std::vector<int64_t> counts = bucket.counts();
        traffic.value_bytes = elements * used;
        for (const int64_t own : counts) {
            const bool alone = ownership.world_size == 1;
            if (!bucket.by_rows) traffic.reduce_sent.push_back(alone ? 0 : (elements - own) * gradient);
            traffic.gather_sent.push_back((ownership.world_size - 1) * own * used);
        }
    }
    return all;
}

// As Exchange::all_reduce has it.
int64_t all_reduce_sent(int64_t count, int64_t item, int64_t world_size, int64_t rank) {
    const int64_t bytes = count * item, others = world_size - 1;
    if (bytes <= Exchange::kSmall && bytes * world_size <= Exchange::kStaging) return others * bytes;
    const int64_t own = count * (rank + 1) / world_size - count * rank / world_size;
    return world_size == 1 ? 0 : (count - own) * item + others * own * item;
}

StepTraffic step_traffic(const Config& config, const Ownership& ownership,
                         const std::vector<BucketTraffic>& buckets, const StepSettings& settings,
                         int64_t rank) {
    StepTraffic step;
    for (size_t i = 0; i < buckets.size(); ++i) {
        if (!steps(ownership.buckets[i], settings)) continue;
        step.reduced += buckets[i].reduce_sent[static_cast<size_t>(rank)];
        step.gathered += buckets[i].gather_sent[static_cast<size_t>(rank)];
    }
    step.losses = (ownership.world_size - 1) * (config.data.rows / ownership.world_size + kStepSigns) *
                  static_cast<int64_t>(sizeof(double));
    return step;
}

double least_sent(const Ownership& ownership, const std::vector<BucketTraffic>& buckets, bool adam_steps) {
    double bytes = 0;
    StepSettings settings;
    settings.adam_steps = adam_steps;
    for (size_t i = 0; i < buckets.size(); ++i)
        if (steps(ownership.buckets[i], settings))
            bytes += static_cast<double>(buckets[i].gradient_bytes + buckets[i].value_bytes);
    const auto ranks = static_cast<double>(ownership.world_size);
    return bytes * (ranks - 1) / ranks;
}

int64_t run_sent(const Config& config, const Graph& graph, const Ownership& ownership, int64_t rank) {
    const auto buckets = bucket_traffic(config, graph, ownership);
    // The losses of its micro-batches, and whether a signal has stopped it.
    const int64_t numbers = config.data.val_tokens / config.data.val_micro_batch_tokens + 1;
    const int64_t validation = all_reduce_sent(numbers, sizeof(double), ownership.world_size, rank);
    int64_t bytes = 0;
    for (int64_t step = 0; step <= config.schedule.total_steps(); ++step) {
        const StepSettings settings = settings_at(config, step);
        if (settings.validate) bytes += validation;
        if (settings.trains) bytes += step_traffic(config, ownership, buckets, settings, rank).sum();
    }
    return bytes;
}

}  // namespace speedrun
