#include "data/make_batch.h"

#include <fmt/core.h>
#include <algorithm>
#include <string>

#include "data/shard.h"
#include "util/error.h"

namespace speedrun {
namespace {

// The document starts of a micro-batch, then T up to the end. One entry must be left for the final T.
void fill_cu_seqlens(std::vector<int32_t>& out, std::span<const int32_t> starts, const RowShape& shape) {
    if (static_cast<int64_t>(starts.size()) >= shape.cu_seqlens_entries) {
        throw UserError(fmt::format(
            "a micro-batch of {} tokens has {} documents, data.max_num_docs allows {}: lower its divisor, or "
            "join short documents",
            shape.tokens, starts.size(), shape.cu_seqlens_entries - 1));
    }
    out.assign(static_cast<size_t>(shape.cu_seqlens_entries), static_cast<int32_t>(shape.tokens));
    std::copy(starts.begin(), starts.end(), out.begin());
}

Batch widen(std::span<const uint16_t> row) {
    Batch batch;
    batch.inputs.assign(row.begin(), row.end() - 1);
    batch.targets.assign(row.begin() + 1, row.end());
    return batch;
}

}  // namespace

Batch make_train_batch(std::span<const uint16_t> tokens, std::span<const Segment> segments,
                       const RowShape& shape) {
    std::vector<uint16_t> row;
    row.reserve(static_cast<size_t>(shape.tokens + 1));
    std::vector<int32_t> starts;
    for (const Segment& s : segments) {
        starts.push_back(static_cast<int32_t>(row.size()));
        row.insert(row.end(), tokens.begin() + s.begin, tokens.begin() + s.end);
    }
    check(static_cast<int64_t>(row.size()) == shape.tokens + 1, "a row of the wrong length");
    Batch batch = widen(row);
    fill_cu_seqlens(batch.cu_seqlens, starts, shape);
    return batch;
}

std::vector<int32_t> val_batch_starts(std::span<const uint16_t> row, const DataLayout& layout) {
    const std::span<const uint16_t> inputs = row.first(row.size() - 1);
    std::vector<int32_t> starts{0};
    const auto tokens = static_cast<int64_t>(inputs.size());
    if (layout.sequence_tokens > 0) {
        for (int64_t at = layout.sequence_tokens; at < tokens; at += layout.sequence_tokens)
            starts.push_back(static_cast<int32_t>(at));
        return starts;
    }
    for (const uint32_t at : bos_index(inputs, layout.bos_id)) starts.push_back(static_cast<int32_t>(at));
    return starts;
}

Batch make_val_batch(std::span<const uint16_t> row, std::span<const int32_t> starts, const RowShape& shape) {
    check(static_cast<int64_t>(row.size()) == shape.tokens + 1, "a row of the wrong length");
    Batch batch = widen(row);
    fill_cu_seqlens(batch.cu_seqlens, starts, shape);
    return batch;
}

}  // namespace speedrun
