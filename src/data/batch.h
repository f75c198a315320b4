#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace speedrun {

// One micro-batch of T tokens.
struct Batch {
    std::vector<int32_t> inputs;      // [T]
    std::vector<int64_t> targets;     // [T] token that follows each input
    std::vector<int32_t> cu_seqlens;  // [max_num_docs] document starts, first 0, then T as padding
};

// Tokens of the longest document of a batch.
inline int64_t longest_document(const Batch& batch) {
    int64_t longest = 0;
    for (size_t i = 1; i < batch.cu_seqlens.size(); ++i)
        longest = std::max<int64_t>(longest, batch.cu_seqlens[i] - batch.cu_seqlens[i - 1]);
    return longest;
}

}  // namespace speedrun
