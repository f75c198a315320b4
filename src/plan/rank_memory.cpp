#include "plan/rank_memory.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "comm/exchange.h"
#include "model/gpt.h"
#include "optim/rule.h"
#include "plan/graph_work.h"
#include "plan/traffic.h"
#include "util/error.h"
#include "util/shape.h"

namespace speedrun {
namespace {

using Rule = OptimParamConfig::Rule;

constexpr int64_t kStepCount = sizeof(int64_t);     // "embed.step": written once
constexpr int64_t kPrefix = sizeof(int64_t);        // of a token
constexpr int64_t kWide = 4;                        // bytes of fp32
constexpr int64_t kNcclBytes = int64_t{512} << 20;  // buffers of its channels, by experience
// What the heap keeps of freed blocks, stacks and heaps of threads, generated kernels: measured with the
// golden model, where it is 1 to 4 MB.
constexpr int64_t kProgramBytes = int64_t{3} << 20;

int64_t size_of(Dtype dtype) {
    return dtype == Dtype::bf16 ? 2 : 4;
}

const OptimParamConfig& row_of(const Config& config, const std::string& param) {
    return *std::ranges::find(config.optimizer.params, param, &OptimParamConfig::param);
}

// The rule of a piece, without its memory.
std::unique_ptr<UpdateRule> rule_of(const Config& config, const Piece& piece, int64_t pieces) {
    ParamConfig param = config.model.param(piece.param);
    OptimParamConfig row = row_of(config, piece.param);
    row.matrix_view[0] = row.matrix_view[0] / param.shape[0] * pieces;
    if (row.rule == Rule::matrix)
        param.shape[0] = pieces;
    else
        param.shape = param.shape.size() < 2 ? std::vector{pieces} : std::vector{pieces, param.shape.back()};
    const at::ScalarType dtype = value_size(config, param) == kWide ? at::kFloat : at::kBFloat16;
    return make_meta_rule(config.optimizer, row, param, dtype);
}

int64_t optimizer_work(const Config& config, const Ownership& ownership, int64_t rank, Operators operators) {
    int64_t most = 0;
    for (const Bucket& bucket : ownership.buckets)
        for (const Piece& piece : bucket.owned_by(rank))
            most = std::max(most, rule_of(config, piece, piece.end - piece.begin)
                                      ->cost(operators == Operators::cpu)
                                      .work_bytes);
    return most;
}

// Of a RowExchange: rows and indices that go and come, the sum, and a rank's rows as they are added. Hashes
// spread rows evenly, so that as many come as go, and from every rank as many.
int64_t exchanged_bytes(const Config& config, const Ownership& ownership, int64_t rank) {
    int64_t bytes = 0;
    for (const Bucket& bucket : ownership.buckets) {
        if (!bucket.by_rows) continue;
        const int64_t rows = most_rows(config, bucket, ownership.world_size), cols = bucket.unit_elements;
        const int64_t item = value_size(config, config.model.param(bucket.pieces.front().param));
        const int64_t widened = item == kWide ? 0 : rows / ownership.world_size * cols * kWide;
        bytes += bucket.total_units() + rows * (2 * cols * item + 4 * 4) +
                 bucket.units[static_cast<size_t>(rank)] * cols * kWide + widened;
    }
    return bytes;
}

// Settings of a step whose rows are the longest.
StepSettings longest_rows(const Config& config) {
    const auto& stages = config.schedule.stages;
    const auto longest = std::ranges::max_element(stages, {}, &Stage::batch_tokens);
    return settings_at(config, std::min(longest->start, config.schedule.total_steps() - 1));
}

// Of training, and of a rank that validates.
int64_t operator_bytes(const Config& config, const Graph& graph, Operators operators, bool validates) {
    PassShape shape = pass_shape(config, longest_rows(config));
    Scratch most = pass_scratch(graph, shape, /*training=*/true);
    shape.tokens = config.data.val_micro_batch_tokens;
    if (validates) most = larger(most, pass_scratch(graph, shape, /*training=*/false));
    return operators == Operators::cpu ? most.cpu() : most.gpu;
}

// Regular checkpoints wait for a step of Adam; the last takes what the run ends with.
int64_t checkpoint_copy(const Config& config, const Ownership& ownership, int64_t rank) {
    const auto& when = config.runtime.checkpoint;
    if (when.every_steps == 0 && when.every_minutes == 0) return 0;
    const bool pending = config.schedule.total_steps() % config.optimizer.adam.every_n_steps != 0;
    return checkpoint_bytes(config, ownership, rank, pending);
}

// Of the scales that a rank writes.
int64_t fp8_scale_bytes(const Config& config, int64_t rank) {
    using Format = NumericsConfig::Mlp::Format;
    const NumericsConfig::Mlp& mlp = config.numerics.mlp;
    if (mlp.up.format != Format::fp8 && mlp.down.format != Format::fp8) return 0;
    return std::ssize(compile(config).fp8_weights()) * kWide * (rank == 0 ? 2 : 1);
}

// A prefetching loader has one step in use, two ready and one in the making.
int64_t batch_bytes(const Config& config, int64_t world_size) {
    const int64_t tokens = row_lengths(config).back();
    return 4 * config.data.rows / world_size *
           (tokens * (4 + 8) + 4 * config.data.cu_seqlens_entries(tokens));
}

// Validation micro-batches go round the ranks; there may be fewer of them.
bool validates(const DataConfig& data, int64_t rank) {
    return rank < data.val_tokens / data.val_micro_batch_tokens;
}

}  // namespace

int64_t value_size(const Config& config, const ParamConfig& param) {
    return config.numerics.params == NumericsConfig::Params::fp32 ? kWide : size_of(param.dtype);
}

int64_t used_size(const Config& config, const Graph& graph, const ParamConfig& param) {
    return graph.multiplies(param.name) ? size_of(config.numerics.activations) : value_size(config, param);
}

std::map<std::string, int64_t> unit_state_bytes(const Config& config) {
    std::map<std::string, int64_t> bytes;
    for (const OptimParamConfig& row : config.optimizer.params)
        bytes[row.param] = rule_of(config, {row.param, 0, 1}, 1)->state_bytes();
    return bytes;
}

int64_t state_bytes(const Bucket& bucket, const std::map<std::string, int64_t>& unit_bytes) {
    int64_t bytes = 0;
    for (const Piece& piece : bucket.pieces) bytes += (piece.end - piece.begin) * unit_bytes.at(piece.param);
    return bytes;
}

// The count of steps of each parameter is on every rank.
int64_t optimizer_state_bytes(const std::map<std::string, int64_t>& unit_bytes, const Ownership& ownership,
                              int64_t rank) {
    int64_t bytes = std::ssize(unit_bytes) * kStepCount;
    for (const Bucket& bucket : ownership.buckets)
        for (const Piece& piece : bucket.owned_by(rank))
            bytes += (piece.end - piece.begin) * unit_bytes.at(piece.param);
    return bytes;
}

int64_t optimizer_state_bytes(const Config& config, const Ownership& ownership, int64_t rank) {
    return optimizer_state_bytes(unit_state_bytes(config), ownership, rank);
}

int64_t checkpoint_bytes(const Config& config, const Ownership& ownership, int64_t rank,
                         bool pending_gradients) {
    int64_t bytes = optimizer_state_bytes(config, ownership, rank) + fp8_scale_bytes(config, rank);
    // Rank 0 writes what all have.
    if (rank != 0) bytes -= std::ssize(config.optimizer.params) * kStepCount;
    const auto unit_bytes = unit_state_bytes(config);
    for (const Bucket& bucket : ownership.buckets)
        if (rank != 0 && bucket.replicated)
            bytes -= state_bytes(bucket, unit_bytes);
        else
            bytes += bucket.units[static_cast<size_t>(rank)] * bucket.unit_elements *
                     value_size(config, config.model.param(bucket.pieces.front().param));
    for (const OptimParamConfig& row : config.optimizer.params)
        if (pending_gradients && row.rule == Rule::adam) {
            const ParamConfig& param = config.model.param(row.param);
            bytes += element_count(param.shape) * value_size(config, param);
        }
    return bytes;
}

std::vector<int64_t> row_lengths(const Config& config) {
    std::set<int64_t> lengths;
    for (const Stage& stage : config.schedule.stages) lengths.insert(stage.batch_tokens / config.data.rows);
    return {lengths.begin(), lengths.end()};
}

int64_t activation_bytes(const Config& config, std::span<const int64_t> tokens, int64_t val_tokens) {
    GPT model(config, std::max(std::ranges::max(tokens), val_tokens), at::kMeta);
    const auto batch = [](int64_t size) {
        const auto count = static_cast<size_t>(size);
        return Batch{
            std::vector<int32_t>(count), std::vector<int64_t>(count), {0, static_cast<int32_t>(size)}};
    };
    const StepSettings settings = settings_at(config, 0);
    if (val_tokens > 0) model.evaluate(batch(val_tokens), settings);
    for (const int64_t length : tokens) model.forward_backward(batch(length), settings, 1);
    return model.activation_bytes();
}

int64_t activation_bytes_of_rank(const Config& config, int64_t rank) {
    const DataConfig& data = config.data;
    return activation_bytes(config, row_lengths(config),
                            validates(data, rank) ? data.val_micro_batch_tokens : 0);
}

std::vector<RankMemory> rank_memory(const Config& config, const Graph& graph, const Ownership& ownership,
                                    Operators operators) {
    RankMemory common;
    for (const ParamConfig& param : config.model.params) {
        const int64_t elements = element_count(param.shape), value = value_size(config, param);
        common.masters += elements * value;
        common.gradients += elements * value;
        const int64_t used = used_size(config, graph, param);
        if (used != value) common.copies += elements * used;
    }
    common.copies +=
        fp8_weight_bytes(graph, operators == Operators::cpu ? size_of(config.numerics.activations) : 1);
    const DataConfig& data = config.data;
    const int64_t of_first = activation_bytes_of_rank(config, 0);
    const int64_t of_last = activation_bytes_of_rank(config, ownership.world_size - 1);
    common.tables =
        rotary_positions(config.model, std::max(row_lengths(config).back(), data.val_micro_batch_tokens)) *
        config.model.head_dim * size_of(config.model.rope.table_dtype);
    if (!data.prefix_table.empty()) common.tables += config.model.vocab_size * kPrefix;
    common.program = operators == Operators::cpu ? kProgramBytes : 0;
    common.warm_up = config.runtime.warmup_steps > 0 ? common.masters : 0;
    common.batches = batch_bytes(config, ownership.world_size);
    if (ownership.world_size > 1)
        common.communication =
            operators == Operators::cpu ? Exchange::staging_bytes(ownership.world_size) : kNcclBytes;
    std::vector<RankMemory> ranks(static_cast<size_t>(ownership.world_size), common);
    const auto unit_bytes = unit_state_bytes(config);
    for (int64_t rank = 0; rank < ownership.world_size; ++rank) {
        RankMemory& memory = ranks[static_cast<size_t>(rank)];
        memory.activations = validates(data, rank) ? of_first : of_last;
        memory.operators = operator_bytes(config, graph, operators, validates(data, rank));
        memory.optimizer_state = optimizer_state_bytes(unit_bytes, ownership, rank);
        if (operators == Operators::cpu) memory.checkpoint = checkpoint_copy(config, ownership, rank);
        memory.optimizer_work = optimizer_work(config, ownership, rank, operators);
        memory.communication += exchanged_bytes(config, ownership, rank);
    }
    return ranks;
}

}  // namespace speedrun
