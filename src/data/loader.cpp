#include "data/loader.h"

#include <fmt/core.h>
#include <utility>

#include "data/make_batch.h"
#include "util/error.h"

namespace speedrun {
namespace {

// A row of so many documents, the first at `token`, against what its shape has room for.
void require_room(const std::filesystem::path& shard, int64_t token, int64_t documents, const RowShape& row) {
    if (documents < row.cu_seqlens_entries) return;  // one entry is left for the end
    throw UserError(
        fmt::format("{}: byte {}: the micro-batch of {} tokens that begins with token {} has {} documents, "
                    "data.max_num_docs allows {}: lower its divisor, or join short documents",
                    shard.string(), kShardHeaderBytes + 2 * token, row.tokens, token, documents,
                    row.cu_seqlens_entries - 1));
}

// A step of the shard's documents, or of its stream of tokens, from position.document on.
std::optional<StepPlan> plan_of(const IndexedShard& shard, int64_t first, const StepShape& shape,
                                const DataLayout& layout) {
    const Documents documents = shard.documents();
    if (layout.sequence_tokens > 0)
        return plan_stream_step(documents.tokens, first, shape.rows, shape.row.tokens,
                                layout.sequence_tokens);
    return plan_step(documents, first, shape.rows, shape.row.tokens, shape.max_seq_len);
}

void check_position(const LoaderPosition& p, bool ok, int64_t limit, const char* field, int64_t found) {
    if (ok) return;
    throw UserError(fmt::format(
        "data position {}/{}: {} is {}, these shards allow 0 to {}: are they the shards the run began with?",
        p.shard, p.document, field, found, limit));
}

}  // namespace

DataLayout data_layout(const DataConfig& data) {
    return {data.vocab_size, static_cast<uint16_t>(data.bos_id), data.sequence_tokens};
}
RowShape val_row(const DataConfig& data) {
    return {data.val_micro_batch_tokens, data.cu_seqlens_entries(data.val_micro_batch_tokens)};
}

TrainLoader::TrainLoader(std::vector<std::filesystem::path> shards, DataLayout layout, RowShare share,
                         ReadAhead read_ahead)
    : shards_(std::move(shards), layout, read_ahead), layout_(layout), share_(share) {
    check(share.index >= 0 && share.index < share.count, "a share of the rows is one of several");
}

std::optional<std::pair<StepPlan, int64_t>> TrainLoader::plan_next(const StepShape& shape) {
    int64_t document = position_.document;
    for (int64_t index = position_.shard; index < shards_.size(); ++index, document = 0) {
        auto plan = plan_of(shards_.at(index), document, shape, layout_);
        if (plan) return {{std::move(*plan), index}};
    }
    return std::nullopt;
}

std::vector<Batch> TrainLoader::next_step(const StepShape& shape) {
    const auto next = plan_next(shape);
    if (!next)
        throw UserError(fmt::format("training data ends before step {}: the {} shards up to {} are used up",
                                    position_.step, shards_.size(), shards_.files().back().string()));
    return batches_of(next->first, next->second, shape.row);
}

std::vector<Batch> TrainLoader::next_step_in_a_circle(const StepShape& shape) {
    const auto next = plan_next(shape);
    if (next) return batches_of(next->first, next->second, shape.row);
    position_ = {0, 0, position_.step};
    return next_step(shape);
}

std::vector<Batch> TrainLoader::batches_of(const StepPlan& plan, int64_t index, const RowShape& shape) {
    const IndexedShard& shard = shards_.at(index);
    const auto rows = static_cast<int64_t>(plan.rows.size());
    check(rows % share_.count == 0, "a step's rows divide over the ranks");
    const int64_t own = rows / share_.count;
    std::vector<Batch> batches;
    for (int64_t row = share_.index * own; row < (share_.index + 1) * own; ++row)
        batches.push_back(make_train_batch(shard.shard.tokens(), plan.rows[static_cast<size_t>(row)], shape));
    shard.shard.check_unchanged();
    position_ = {index, plan.next_document, position_.step + 1};
    return batches;
}

void TrainLoader::seek(const LoaderPosition& p) {
    check_position(p, p.step >= 0, INT64_MAX, "step", p.step);
    check_position(p, p.shard >= 0 && p.shard < shards_.size(), shards_.size() - 1, "shard", p.shard);
    if (p.document != 0) {  // at document 0 the shard need not be opened yet
        const Documents all = shards_.at(p.shard).documents();
        const auto documents = layout_.sequence_tokens > 0 ? all.tokens : std::ssize(all.starts);
        check_position(p, p.document > 0 && p.document <= documents, documents, "document", p.document);
    }
    position_ = p;
}

DataBudget measure_data(std::vector<std::filesystem::path> files, DataLayout layout,
                        std::span<const StepShape> steps) {
    ShardSequence shards(std::move(files), layout, ReadAhead::yes);
    DataBudget budget;
    budget.steps_needed = static_cast<int64_t>(steps.size());
    for (const StepShape& shape : steps) budget.tokens_needed += shape.batch_tokens();
    for (int64_t index = 0; index < shards.size() && budget.steps_served < budget.steps_needed; ++index) {
        const IndexedShard& shard = shards.at(index);
        ++budget.shards;
        budget.shard_tokens += shard.documents().tokens;
        int64_t document = 0;
        while (budget.steps_served < budget.steps_needed) {
            const StepShape& shape = steps[static_cast<size_t>(budget.steps_served)];
            const auto plan = plan_of(shard, document, shape, layout);
            if (!plan) break;
            for (const auto& row : plan->rows)
                require_room(shards.files()[static_cast<size_t>(index)], row.front().begin,
                             static_cast<int64_t>(row.size()), shape.row);
            document = plan->next_document;
            ++budget.steps_served;
            budget.tokens_served += shape.batch_tokens();
        }
    }
    return budget;
}

int64_t require_enough_data(const std::vector<std::filesystem::path>& shards, const DataLayout& layout,
                            std::span<const StepShape> steps) {
    const DataBudget b = measure_data(shards, layout, steps);
    if (b.steps_served == b.steps_needed) return b.shards;
    throw UserError(fmt::format(
        "too little training data: the run needs {} tokens in {} steps, {} shard(s) with {} tokens serve {} "
        "in {} steps (documents are cut at max_seq_len and at the end of a row); {} tokens are missing",
        b.tokens_needed, b.steps_needed, shards.size(), b.shard_tokens, b.tokens_served, b.steps_served,
        b.tokens_needed - b.tokens_served));
}

ValLoader::ValLoader(const std::vector<std::filesystem::path>& shards, DataLayout layout, RowShape shape,
                     int64_t val_tokens)
    : layout_(layout), row_(shape) {
    const int64_t row = shape.tokens;
    check(row > 0 && val_tokens > 0 && val_tokens % row == 0, "val_tokens must be a positive multiple of T");
    const auto wanted = static_cast<size_t>(val_tokens / row);
    int64_t held = 0;
    for (size_t i = 0; i < shards.size() && places_.size() < wanted; ++i) {
        const Shard& shard = shards_.emplace_back(shards[i]);
        shard.check_tokens(layout.vocab_size);
        const auto tokens = static_cast<int64_t>(shard.tokens().size());
        held += tokens;
        for (int64_t at = 0; at + row + 1 <= tokens && places_.size() < wanted; at += row)
            places_.push_back({i, at});
    }
    if (places_.size() < wanted) {
        throw UserError(fmt::format(
            "too little validation data: data.val_tokens is {}, {} shard(s) with {} tokens serve {} in "
            "micro-batches of {}",
            val_tokens, shards.size(), held, static_cast<int64_t>(places_.size()) * row, row));
    }
    for (const Place place : places_)
        require_room(shards_[place.shard].path(), place.token,
                     std::ssize(val_batch_starts(tokens_at(place), layout)), row_);
    for (const Shard& shard : shards_) shard.check_unchanged();
}

std::span<const uint16_t> ValLoader::tokens_at(Place place) const {
    return shards_[place.shard].tokens().subspan(static_cast<size_t>(place.token),
                                                 static_cast<size_t>(row_.tokens + 1));
}

Batch ValLoader::at(int64_t index) const {
    check(index >= 0 && index < size(), "validation micro-batch out of range");
    const Place place = places_[static_cast<size_t>(index)];
    const std::span<const uint16_t> tokens = tokens_at(place);
    Batch batch = make_val_batch(tokens, val_batch_starts(tokens, layout_), row_);
    shards_[place.shard].check_unchanged();
    return batch;
}

}  // namespace speedrun
