#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "data/batch.h"
#include "data/indexed_shard.h"
#include "data/packing.h"

namespace speedrun {

// The row that `segments` of a shard's tokens make, T + 1 tokens in all: inputs are the first T, targets the
// last T, each segment a document. UserError if there are more documents than row.cu_seqlens_entries - 1.
Batch make_train_batch(std::span<const uint16_t> tokens, std::span<const Segment> segments,
                       const RowShape& row);

// The micro-batch of T + 1 contiguous tokens with documents at `starts`, ascending from 0. UserError as
// above.
Batch make_val_batch(std::span<const uint16_t> tokens, std::span<const int32_t> starts, const RowShape& row);
// Where the documents of such a micro-batch start: at each BOS, what precedes the first one counting as one;
// or every layout.sequence_tokens.
std::vector<int32_t> val_batch_starts(std::span<const uint16_t> tokens, const DataLayout& layout);

}  // namespace speedrun
