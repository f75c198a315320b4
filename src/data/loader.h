#pragma once
// Training batches as record 43's loader makes them for eight ranks, and contiguous validation batches
// (distributed_data_generator in its train_gpt.py).
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "data/batch.h"
#include "data/indexed_shard.h"

namespace speedrun {

DataLayout data_layout(const DataConfig& data);
// Of validation micro-batches.
RowShape val_row(const DataConfig& data);

// Where a loader stands: all that is needed to go on from there.
struct LoaderPosition {
    int64_t shard = 0;     // index in the list of shards
    int64_t document = 0;  // next document of that shard; of a stream, its next token
    int64_t step = 0;      // steps served so far
    bool operator==(const LoaderPosition&) const = default;
};

// The rows of a step that one rank reads: with `count` ranks, the index-th of as many equal runs.
struct RowShare {
    int64_t index = 0, count = 1;
};

// BOS-aligned training batches, or (track 3) runs of tokens. Which tokens a step gets does not depend on the
// number of ranks: when a shard runs out within a step, all rows of that step's call are dropped and the step
// is taken from the next shard.
class TrainLoader {
  public:
    // Throws UserError if a shard is bad when it is reached (the first one: at the first step).
    TrainLoader(std::vector<std::filesystem::path> shards, DataLayout layout, RowShare share = {},
                ReadAhead read_ahead = ReadAhead::no);

    // This share of the next step's rows, in order. UserError if the shards are used up
    // or a row has more documents than cu_seqlens has room for; the position is then unchanged.
    std::vector<Batch> next_step(const StepShape& shape);
    // The same; where the shards are used up, begins again with the first. For a warm-up, whose tokens do not
    // matter: it may have more steps than the run.
    std::vector<Batch> next_step_in_a_circle(const StepShape& shape);

    LoaderPosition position() const { return position_; }
    // Goes on from `position`, as saved earlier. UserError if these shards have no such place.
    void seek(const LoaderPosition& position);

  private:
    // The plan of the next step, and the shard that serves it; none where the shards are used up.
    std::optional<std::pair<StepPlan, int64_t>> plan_next(const StepShape& shape);
    std::vector<Batch> batches_of(const StepPlan& plan, int64_t shard, const RowShape& row);

    ShardSequence shards_;
    DataLayout layout_;
    RowShare share_;
    LoaderPosition position_;
};

// What a schedule asks of the shards and what they hold.
struct DataBudget {
    int64_t steps_needed = 0, steps_served = 0;
    int64_t tokens_needed = 0, tokens_served = 0;  // sums of batch_tokens over those steps
    int64_t shards = 0;        // that were looked at: the first of the list (all of them if data is short)
    int64_t shard_tokens = 0;  // in those
};

// Exact dry run of TrainLoader over the document index, without making batches; opens only the shards it
// needs. UserError as well where a row has more documents than cu_seqlens has room for.
DataBudget measure_data(std::vector<std::filesystem::path> shards, DataLayout layout,
                        std::span<const StepShape> steps);

// Throws UserError saying how much is missing unless the shards serve every step. Returns how many of them,
// from the first on, the steps read.
int64_t require_enough_data(const std::vector<std::filesystem::path>& shards, const DataLayout& layout,
                            std::span<const StepShape> steps);

// Validation micro-batches: contiguous tokens, nothing truncated, documents split at BOS inside the
// micro-batch, or streams into sequences. What precedes the first BOS is a segment of its own (an empty one
// where BOS is at position 0).
// The last target is the token that follows in the shard. A micro-batch does not cross shards: what is left
// of a shard then is skipped.
class ValLoader {
  public:
    // UserError unless the shards serve val_tokens (a multiple of T), or where a micro-batch has more
    // documents than cu_seqlens has room for.
    ValLoader(const std::vector<std::filesystem::path>& shards, DataLayout layout, RowShape row,
              int64_t val_tokens);

    int64_t size() const { return static_cast<int64_t>(places_.size()); }  // micro-batches
    int64_t shards() const {
        return static_cast<int64_t>(shards_.size());
    }  // from the first on, that it reads
    Batch at(int64_t index) const;

  private:
    struct Place {
        size_t shard;
        int64_t token;
    };
    std::span<const uint16_t> tokens_at(Place place) const;  // of a micro-batch, and the one that follows

    DataLayout layout_;
    RowShape row_;
    std::vector<Shard> shards_;
    std::vector<Place> places_;
};

}  // namespace speedrun
