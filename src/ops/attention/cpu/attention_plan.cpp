#include "ops/attention/cpu/attention_plan.h"

#include <algorithm>
#include <limits>
#include <string>

#include "util/error.h"

namespace speedrun::ops::cpu {

std::vector<int32_t> first_keys(std::span<const int32_t> cu_seqlens, int64_t T, int64_t window) {
    check(window >= 0, "attention window " + std::to_string(window) + " is negative");
    check(!cu_seqlens.empty() && cu_seqlens.front() == 0 && cu_seqlens.back() == T,
          "cu_seqlens must run from 0 to T = " + std::to_string(T));
    std::vector<int32_t> first(static_cast<size_t>(T));
    for (size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
        const int64_t start = cu_seqlens[i], end = cu_seqlens[i + 1];
        check(start <= end, "cu_seqlens decreases at entry " + std::to_string(i + 1));
        check(end <= T, "cu_seqlens exceeds T at entry " + std::to_string(i + 1));
        for (int64_t t = start; t < end; ++t) {
            first[static_cast<size_t>(t)] = static_cast<int32_t>(std::max(start, t - window));
        }
    }
    return first;
}

std::vector<BlockRange> key_blocks(std::span<const int32_t> first_keys) {
    std::vector<BlockRange> ranges;
    for (size_t t = 0; t < first_keys.size(); t += kBlock) {
        ranges.push_back({first_keys[t] / kBlock, static_cast<int64_t>(t) / kBlock + 1});
    }
    return ranges;
}

int64_t widest(std::span<const BlockRange> key_blocks) {
    int64_t most = 0;
    for (const BlockRange& range : key_blocks) most = std::max(most, range.end - range.begin);
    return most;
}

std::vector<AttentionTask> attention_tasks(std::span<const BlockRange> key_blocks, int64_t heads) {
    const auto count = static_cast<int64_t>(key_blocks.size());
    const int64_t length = std::max<int64_t>(16, 8 * widest(key_blocks));
    std::vector<AttentionTask> tasks;
    for (int64_t head = 0; head < heads; ++head) {
        for (int64_t begin = 0; begin < count; begin += length) {
            tasks.push_back({head, {begin, std::min(count, begin + length)}});
        }
    }
    return tasks;
}

PairMask pair_mask(std::span<const int32_t> first_keys, int64_t query_block, int64_t key_block) {
    const int64_t tokens = static_cast<int64_t>(first_keys.size());
    const int64_t query = query_block * kBlock, key = key_block * kBlock;
    PairMask mask;
    for (int64_t i = 0; i < kBlock; ++i) {
        const bool exists = query + i < tokens;
        mask.lo[i] = exists ? static_cast<int32_t>(first_keys[static_cast<size_t>(query + i)] - key)
                            : std::numeric_limits<int32_t>::max();
        mask.hi[i] = static_cast<int32_t>(query + i - key);
    }
    return mask;
}

}  // namespace speedrun::ops::cpu
