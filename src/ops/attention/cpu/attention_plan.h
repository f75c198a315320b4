#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace speedrun::ops::cpu {

// Tokens of a block, of queries and of keys.
inline constexpr int64_t kBlock = 64;

// first_keys[t]: the oldest key that query t sees, max(start of t's document, t - window). Never decreases
// with t. cu_seqlens as in AttentionMask: starts at 0, never decreases, ends at T (anything else:
// InternalError).
std::vector<int32_t> first_keys(std::span<const int32_t> cu_seqlens, int64_t T, int64_t window);

// Blocks (of kBlock tokens) begin .. end - 1.
struct BlockRange {
    int64_t begin = 0, end = 0;
    bool operator==(const BlockRange&) const = default;
};

// Which blocks of keys each block of queries has to visit, and nothing else is visited: one range a block of
// queries.
std::vector<BlockRange> key_blocks(std::span<const int32_t> first_keys);

// A run of blocks that one thread works through in order, for one head. The division depends on the shape and
// the mask alone, not on the number of threads.
struct AttentionTask {
    int64_t head = 0;
    BlockRange blocks;
};

// Where a task starts, keys of the task before are visited a second time; this keeps that below a tenth of
// the work.
std::vector<AttentionTask> attention_tasks(std::span<const BlockRange> key_blocks, int64_t heads);

// The most blocks of keys that any block of queries visits.
int64_t widest(std::span<const BlockRange> key_blocks);

// The keys and queries of one pair of blocks, counted from the first of the block: query i sees keys lo[i] ..
// hi[i].
struct PairMask {
    int32_t lo[kBlock], hi[kBlock];
};
PairMask pair_mask(std::span<const int32_t> first_keys, int64_t query_block, int64_t key_block);

}  // namespace speedrun::ops::cpu
