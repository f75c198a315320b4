#pragma once
#include <cstdint>
#include <vector>

namespace speedrun {

// One micro-batch of T tokens.
struct Batch {
    std::vector<int32_t> inputs;      // [T]
    std::vector<int64_t> targets;     // [T] token that follows each input
    std::vector<int32_t> cu_seqlens;  // [max_num_docs] document starts, first 0, then T as padding
};

}  // namespace speedrun
