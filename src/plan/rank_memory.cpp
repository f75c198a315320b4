#include "plan/rank_memory.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <numeric>

#include "comm/exchange.h"
#include "model/gpt.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/head_loss.h"
#include "optim/rule.h"
#include "util/error.h"

namespace speedrun {
namespace {

using Rule = OptimParamConfig::Rule;

constexpr int64_t kSteps = 2 * sizeof(int64_t);     // "matrix.step", "adam.step": written once
constexpr int64_t kWide = 4;                        // bytes of fp32
constexpr int64_t kNcclBytes = int64_t{512} << 20;  // buffers of its channels, by experience
// What the heap keeps of freed blocks, stacks and heaps of threads, generated kernels: measured with the
// golden model, where it is 1 to 4 MB.
constexpr int64_t kProgramBytes = int64_t{3} << 20;

int64_t size_of(Dtype dtype) {
    return dtype == Dtype::bf16 ? 2 : 4;
}

int64_t product(const std::vector<int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
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

// The largest operands that products of the model pack, in forward and in the gradients of inputs and of
// weights.
int64_t packed_operands(const Config& config, int64_t tokens, int64_t item) {
    ops::cpu::GemmScratch most;
    const auto product = [&](int64_t rows, int64_t depth, int64_t cols) {
        const ops::cpu::GemmScratch one = ops::cpu::gemm_scratch(rows, depth, cols, item);
        most = {std::max(most.a, one.a), std::max(most.b, one.b)};
    };
    const int64_t d = config.model.d_model;
    for (const LayerConfig& layer : config.model.layers) {
        if (layer.skip_layer) continue;
        if (layer.attn) product(3 * d, tokens, d);
        if (layer.mlp) product(d, tokens, config.model.param(layer.mlp->fc).shape[2]);
    }
    return most.a + most.b;
}

// On a GPU the head keeps the logits of so many tokens (ops/head_loss.h).
constexpr int64_t kGpuHeadRows = 32768;

// In FP8 beside them their gradient in 8 bits and the same transposed; weights and inputs both ways; and the
// weights' gradient in fp32 before it is added.
int64_t gpu_head_bytes(const Config& config, int64_t rows, int64_t vocab, int64_t item) {
    const int64_t logits = rows * vocab, weights = vocab * config.model.d_model;
    if (config.numerics.lm_head.format != NumericsConfig::Head::Format::fp8) return logits * item;
    return logits * (item + 2) + (2 + kWide) * weights + 2 * rows * config.model.d_model;
}

int64_t operator_bytes(const Config& config, Operators operators) {
    const int64_t tokens = config.data.micro_batch_tokens;
    const ModelConfig& model = config.model;
    const ParamConfig& head = model.param(model.output.head);
    const int64_t vocab = head.shape[0], item = size_of(config.numerics.activations);
    if (operators == Operators::cpu)
        return packed_operands(config, tokens, item) +
               ops::cpu::head_scratch_bytes(tokens, vocab, model.d_model, item,
                                            value_size(config, head) == 2);
    return gpu_head_bytes(config, std::min(tokens, kGpuHeadRows), vocab, item);
}

// Regular checkpoints wait for a step of Adam; the last takes what the run ends with.
int64_t checkpoint_copy(const Config& config, const Ownership& ownership, int64_t rank) {
    const auto& when = config.runtime.checkpoint;
    if (when.every_steps == 0 && when.every_minutes == 0) return 0;
    const bool pending = config.schedule.total_steps() % config.optimizer.adam.every_n_steps != 0;
    return checkpoint_bytes(config, ownership, rank, pending);
}

// A prefetching loader has one step in use, two ready and one in the making.
int64_t batch_bytes(const Config& config, int64_t world_size) {
    int64_t rows = 0;
    const int64_t tokens = config.data.micro_batch_tokens;
    for (const Stage& stage : config.schedule.stages)
        rows = std::max(rows, stage.batch_tokens / tokens / world_size);
    return 4 * rows * (tokens * (4 + 8) + 4 * config.data.max_num_docs.entries(tokens));
}

// Validation micro-batches go round the ranks; there may be fewer of them.
bool validates(const DataConfig& data, int64_t rank) {
    return rank < data.val_tokens / data.val_micro_batch_tokens;
}

}  // namespace

int64_t value_size(const Config& config, const ParamConfig& param) {
    return config.numerics.params == NumericsConfig::Params::fp32 ? kWide : size_of(param.dtype);
}

int64_t used_size(const Config& config, const ParamConfig& param) {
    return config.model.multiplied(param) ? size_of(config.numerics.activations) : value_size(config, param);
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

int64_t optimizer_state_bytes(const std::map<std::string, int64_t>& unit_bytes, const Ownership& ownership,
                              int64_t rank) {
    int64_t bytes = kSteps;
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
    int64_t bytes = optimizer_state_bytes(config, ownership, rank);
    if (rank != 0) bytes -= kSteps;
    for (const Bucket& bucket : ownership.buckets)
        bytes += bucket.units[static_cast<size_t>(rank)] * bucket.unit_elements *
                 value_size(config, config.model.param(bucket.pieces.front().param));
    for (const OptimParamConfig& row : config.optimizer.params)
        if (pending_gradients && row.rule == Rule::adam) {
            const ParamConfig& param = config.model.param(row.param);
            bytes += product(param.shape) * value_size(config, param);
        }
    return bytes;
}

int64_t activation_bytes(const Config& config, int64_t tokens, int64_t val_tokens) {
    GPT model(config, std::max(tokens, val_tokens), at::kMeta);
    const auto batch = [](int64_t size) {
        const auto count = static_cast<size_t>(size);
        return Batch{
            std::vector<int32_t>(count), std::vector<int64_t>(count), {0, static_cast<int32_t>(size)}};
    };
    const AttentionSettings settings{0, 0, model.rotary().window()};
    if (val_tokens > 0) model.evaluate(batch(val_tokens), settings);
    model.forward_backward(batch(tokens), settings, 1);
    return model.activation_bytes();
}

int64_t activation_bytes_per_token(const Config& config) {
    constexpr int64_t tokens = 512;  // no tensor of so many is rounded up
    return activation_bytes(config, tokens, 0) / tokens;
}

int64_t activation_bytes_of_rank(const Config& config, int64_t rank) {
    const DataConfig& data = config.data;
    return activation_bytes(config, data.micro_batch_tokens,
                            validates(data, rank) ? data.val_micro_batch_tokens : 0);
}

std::vector<RankMemory> rank_memory(const Config& config, const Ownership& ownership, Operators operators) {
    RankMemory common;
    for (const ParamConfig& param : config.model.params) {
        const int64_t elements = product(param.shape), value = value_size(config, param);
        common.masters += elements * value;
        common.gradients += elements * value;
        if (used_size(config, param) != value) common.copies += elements * used_size(config, param);
    }
    const DataConfig& data = config.data;
    const int64_t of_first = activation_bytes_of_rank(config, 0);
    const int64_t of_last = activation_bytes_of_rank(config, ownership.world_size - 1);
    common.tables = std::max(data.micro_batch_tokens, data.val_micro_batch_tokens) * config.model.head_dim *
                    size_of(config.model.rope.table_dtype);
    common.operators = operator_bytes(config, operators);
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
        memory.optimizer_state = optimizer_state_bytes(unit_bytes, ownership, rank);
        if (operators == Operators::cpu) memory.checkpoint = checkpoint_copy(config, ownership, rank);
        memory.optimizer_work = optimizer_work(config, ownership, rank, operators);
    }
    return ranks;
}

}  // namespace speedrun
