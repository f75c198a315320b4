#include "train/rank_memory.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "dist/exchange.h"
#include "model/gpt.h"
#include "ops/cpu/head_loss.h"
#include "ops/gemm.h"
#include "optim/normuon.h"
#include "util/error.h"

namespace speedrun {
namespace {

using Rule = OptimParamConfig::Rule;

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

// The matrices of a piece.
int64_t matrices_of(const Config& config, const Piece& piece) {
    return row_of(config, piece.param).matrix_view[0] / config.model.param(piece.param).shape[0] *
           (piece.end - piece.begin);
}

int64_t piece_state(const Config& config, const Bucket& bucket, const Piece& piece) {
    const ParamConfig& param = config.model.param(piece.param);
    const int64_t elements = (piece.end - piece.begin) * bucket.unit_elements,
                  value = value_size(config, param);
    if (bucket.rule == Rule::adam)
        return 2 * elements * (param.shape.size() < 2 ? kWide : size_of(config.optimizer.adam.state_dtype));
    int64_t second_moment = 0;
    if (config.optimizer.normuon.second_moment == NorMuonConfig::SecondMoment::vector) {
        const OptimParamConfig& row = row_of(config, piece.param);
        second_moment =
            matrices_of(config, piece) * row.matrix_view[row.var_reduce_dim == -2 ? 2 : 1] * value;
    }
    return elements * value + second_moment;
}

// Temporaries of NorMuon::step on the matrices that it works on at a time.
int64_t matrix_work(const Config& config, const Piece& piece, Operators operators) {
    const auto& [all, rows, cols] = row_of(config, piece.param).matrix_view;
    const int64_t size = rows * cols, gram = std::min(rows, cols) * std::min(rows, cols);
    const int64_t group = std::min(matrices_of(config, piece), matrix_group(rows, cols));
    const int64_t item = size_of(config.optimizer.normuon.orthogonalize.dtype);
    // The update; then either it widened, divided and rounded, or the iterate, its successor, the Gram matrix
    // and the polynomial, and for tall matrices the result turned back.
    const int64_t widened = item == kWide ? kWide * size : (2 * kWide + item) * size;
    const int64_t iterating = 2 * item * size + 2 * item * gram + (rows > cols ? item * size : 0);
    // ATen's apply_matrix_update keeps X, its square, u, the decay and its mask, and the new value, in fp32.
    const int64_t applying = operators == Operators::gpu ? 6 * kWide * size : item * size;
    return group * (item * size + std::max({widened, iterating, applying}));
}

int64_t optimizer_work(const Config& config, const Ownership& ownership, int64_t rank, Operators operators) {
    int64_t most = 0;
    for (const Bucket& bucket : ownership.buckets)
        for (const Piece& piece : bucket.owned_by(rank)) {
            if (bucket.rule != Rule::adam)
                most = std::max(most, matrix_work(config, piece, operators));
            else if (operators ==
                     Operators::gpu)  // ATen's adam_update: g, m, v, root, quotient, value in fp32
                most = std::max(most, 6 * kWide * (piece.end - piece.begin) * bucket.unit_elements);
        }
    return most;
}

// The largest operands that products of the model pack, in forward and in the gradients of inputs and of
// weights.
int64_t packed_operands(const Config& config, int64_t tokens, int64_t item) {
    ops::GemmScratch most;
    const auto product = [&](int64_t rows, int64_t depth, int64_t cols) {
        const ops::GemmScratch one = ops::gemm_scratch(rows, depth, cols, item);
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

int64_t operator_bytes(const Config& config, Operators operators) {
    const int64_t tokens = config.data.micro_batch_tokens;
    const ModelConfig& model = config.model;
    const ParamConfig& head = model.param(model.output.head);
    const int64_t vocab = head.shape[0], item = size_of(config.numerics.activations);
    if (operators == Operators::cpu)
        return packed_operands(config, tokens, item) +
               ops::cpu::head_scratch_bytes(tokens, vocab, model.d_model, item,
                                            value_size(config, head) == 2);
    // ATen's head: weights and their gradient in fp32, and four arrays of logits of 4096 tokens at a time.
    return kWide * (2 * vocab * model.d_model + 4 * vocab * std::min<int64_t>(tokens, 4096));
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

}  // namespace

int64_t value_size(const Config& config, const ParamConfig& param) {
    return config.numerics.params == NumericsConfig::Params::fp32 ? kWide : size_of(param.dtype);
}

int64_t used_size(const Config& config, const ParamConfig& param) {
    return config.model.multiplied(param) ? size_of(config.numerics.activations) : value_size(config, param);
}

int64_t optimizer_state_bytes(const Config& config, const Ownership& ownership, int64_t rank) {
    int64_t bytes = sizeof(int64_t);  // "adam.step"
    for (const Bucket& bucket : ownership.buckets)
        for (const Piece& piece : bucket.owned_by(rank)) bytes += piece_state(config, bucket, piece);
    return bytes;
}

int64_t checkpoint_bytes(const Config& config, const Ownership& ownership, int64_t rank,
                         bool pending_gradients) {
    int64_t bytes = optimizer_state_bytes(config, ownership, rank);
    if (rank != 0) bytes -= static_cast<int64_t>(sizeof(int64_t));  // "adam.step" is written once
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

std::vector<RankMemory> rank_memory(const Config& config, const Ownership& ownership, Operators operators) {
    RankMemory common;
    for (const ParamConfig& param : config.model.params) {
        const int64_t elements = product(param.shape), value = value_size(config, param);
        common.masters += elements * value;
        common.gradients += elements * value;
        if (used_size(config, param) != value) common.copies += elements * used_size(config, param);
    }
    const DataConfig& data = config.data;
    // Validation micro-batches go round the ranks; there may be fewer of them.
    const int64_t validating = data.val_tokens / data.val_micro_batch_tokens;
    const int64_t with_validation =
        activation_bytes(config, data.micro_batch_tokens, data.val_micro_batch_tokens);
    const int64_t training = activation_bytes(config, data.micro_batch_tokens, 0);
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
    for (int64_t rank = 0; rank < ownership.world_size; ++rank) {
        RankMemory& memory = ranks[static_cast<size_t>(rank)];
        memory.activations = rank < validating ? with_validation : training;
        memory.optimizer_state = optimizer_state_bytes(config, ownership, rank);
        if (operators == Operators::cpu) memory.checkpoint = checkpoint_copy(config, ownership, rank);
        memory.optimizer_work = optimizer_work(config, ownership, rank, operators);
    }
    return ranks;
}

}  // namespace speedrun
