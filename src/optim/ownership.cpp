#include "optim/ownership.h"

#include <algorithm>
#include <numeric>

#include "config/comm.h"
#include "util/error.h"
#include "util/shape.h"

namespace speedrun {
namespace {

const OptimParamConfig& row_of(const Config& config, const std::string& param) {
    const auto row = std::ranges::find(config.optimizer.params, param, &OptimParamConfig::param);
    check(row != config.optimizer.params.end(), param + " has no row in the optimizer's table");
    return *row;
}

std::vector<int64_t> shares(int64_t units, int64_t world_size) {
    const int64_t most = (units + world_size - 1) / world_size;
    std::vector<int64_t> counts;
    for (int64_t rank = 0; rank < world_size; ++rank)
        counts.push_back(std::clamp<int64_t>(units - rank * most, 0, most));
    return counts;
}

// Units of dimension 0's entries: one each for matrix rules, as many as they have rows for element rules.
int64_t units_per_entry(const ParamConfig& param, int64_t unit) {
    return element_count(std::span(param.shape).subspan(1)) / unit;
}

}  // namespace

int64_t Bucket::total_units() const {
    int64_t total = 0;
    for (const Piece& piece : pieces) total += piece.end - piece.begin;
    return total;
}

std::vector<int64_t> Bucket::counts() const {
    check(!replicated, name + " is not divided");
    std::vector<int64_t> counts = units;
    for (int64_t& count : counts) count *= unit_elements;
    return counts;
}

std::vector<Piece> Bucket::owned_by(int64_t rank) const {
    if (replicated) return pieces;
    const auto own = units.begin() + rank;
    const int64_t begin = std::accumulate(units.begin(), own, int64_t{0}), end = begin + *own;
    std::vector<Piece> owned;
    int64_t at = 0;  // of the piece in the bucket
    for (const Piece& piece : pieces) {
        const int64_t size = piece.end - piece.begin;
        const int64_t from = std::clamp<int64_t>(begin - at, 0, size),
                      to = std::clamp<int64_t>(end - at, 0, size);
        if (from < to) owned.push_back({piece.param, piece.begin + from, piece.begin + to});
        at += size;
    }
    return owned;
}

bool steps(const Bucket& bucket, const StepSettings& settings) {
    if (bucket.rule != OptimParamConfig::Rule::adam) return bucket.rule == OptimParamConfig::Rule::matrix;
    const auto rests = [&](const Piece& piece) {
        return std::ranges::find(settings.resting, piece.param) != settings.resting.end();
    };
    return settings.adam_steps && std::ranges::none_of(bucket.pieces, rests);
}

Ownership plan_ownership(const Config& config, int64_t world_size) {
    check(world_size >= 1, "a job has ranks");
    Ownership plan{world_size, {}, comm_work_order(config)};
    for (const CommBucket& source : comm_buckets(config)) {
        const ParamConfig& first = config.model.param(source.ranges.front().param);
        const OptimParamConfig& row = row_of(config, first.name);
        Bucket bucket{source.name, row.rule, 0, {}, {}, row.comm == OptimParamConfig::Comm::replicated};
        bucket.by_rows = row.comm == OptimParamConfig::Comm::sharded_sparse && world_size > 1;
        bucket.unit_elements = unit_elements(first, bucket.rule);
        int64_t units = 0;
        for (const CommRange& range : source.ranges) {
            const int64_t each = units_per_entry(config.model.param(range.param), bucket.unit_elements);
            bucket.pieces.push_back({range.param, range.begin * each, range.end * each});
            units += (range.end - range.begin) * each;
        }
        bucket.units = bucket.replicated ? std::vector(static_cast<size_t>(world_size), units)
                                         : shares(units, world_size);
        plan.buckets.push_back(std::move(bucket));
    }
    return plan;
}

}  // namespace speedrun
