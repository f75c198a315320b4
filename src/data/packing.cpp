#include "data/packing.h"

#include <algorithm>

#include "util/error.h"

namespace speedrun {

std::optional<StepPlan> plan_step(const Documents& documents, int64_t first, int64_t rows, int64_t row_tokens,
                                  int64_t max_seq_len) {
    check(first >= 0 && rows > 0 && row_tokens > 0 && max_seq_len > 0, "plan_step: sizes must be positive");
    const auto n = static_cast<int64_t>(documents.starts.size());
    StepPlan plan{std::vector<std::vector<Segment>>(static_cast<size_t>(rows)), first};
    int64_t& document = plan.next_document;
    for (auto& row : plan.rows) {
        for (int64_t left = row_tokens + 1; left > 0; ++document) {
            if (document >= n) return std::nullopt;
            const auto at = static_cast<size_t>(document);
            const int64_t begin = documents.starts[at];
            const int64_t next = document + 1 < n ? documents.starts[at + 1] : documents.tokens;
            const int64_t length = std::min({next - begin, max_seq_len, left});
            row.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(begin + length)});
            left -= length;
        }
    }
    return plan;
}

std::optional<StepPlan> plan_stream_step(int64_t tokens, int64_t first, int64_t rows, int64_t row_tokens,
                                         int64_t sequence_tokens) {
    check(first >= 0 && rows > 0 && sequence_tokens > 0 && row_tokens % sequence_tokens == 0,
          "plan_stream_step: a row is a number of sequences");
    StepPlan plan{std::vector<std::vector<Segment>>(static_cast<size_t>(rows)), first};
    int64_t& next = plan.next_document;
    if (first + rows * row_tokens + 1 >= tokens) return std::nullopt;
    for (auto& row : plan.rows) {
        const int64_t end = next + row_tokens;
        for (; next < end; next += sequence_tokens)
            row.push_back({static_cast<uint32_t>(next), static_cast<uint32_t>(next + sequence_tokens)});
        ++row.back().end;  // the last target
    }
    return plan;
}

}  // namespace speedrun
