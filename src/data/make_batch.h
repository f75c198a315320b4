#pragma once
#include <cstdint>
#include <span>

#include "data/batch.h"
#include "data/packing.h"

namespace speedrun {

// The row that `segments` of a shard's tokens make, T + 1 tokens in all: inputs are the first T, targets the
// last T, each segment a document. UserError if there are more documents than row.cu_seqlens_entries - 1.
Batch make_train_batch(std::span<const uint16_t> tokens, std::span<const Segment> segments,
                       const RowShape& row);

// The micro-batch of T + 1 contiguous tokens, documents split at BOS. UserError as above.
Batch make_val_batch(std::span<const uint16_t> tokens, const RowShape& row, uint16_t bos_id);
// How many documents that has, what precedes the first BOS counted as one.
int64_t documents_of_val_batch(std::span<const uint16_t> tokens, uint16_t bos_id);

}  // namespace speedrun
