#pragma once
// How documents fill the rows of a training step. Pure arithmetic on document starts: the loader, and the
// count of the steps that a set of shards can serve, both go through plan_step.
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace speedrun {

// A row of a batch: one micro-batch.
struct RowShape {
    int64_t tokens = 0;              // T
    int64_t cu_seqlens_entries = 0;  // size of Batch::cu_seqlens
    bool operator==(const RowShape&) const = default;
};

// Batch shape of one step; documents are cut at max_seq_len tokens.
struct StepShape {
    int64_t rows = 0;
    RowShape row;
    int64_t max_seq_len = 0;
    int64_t batch_tokens() const { return rows * row.tokens; }
    bool operator==(const StepShape&) const = default;
};

// Tokens [begin, end) of a shard.
struct Segment {
    uint32_t begin = 0, end = 0;
    bool operator==(const Segment&) const = default;
};

// Document starts of one shard, ascending, and its number of tokens.
struct Documents {
    std::span<const uint32_t> starts;
    int64_t tokens = 0;
};

// Segments of each row of one step, in row order, and the first document that no row has taken.
struct StepPlan {
    std::vector<std::vector<Segment>> rows;
    int64_t next_document = 0;
};

// Fills `rows` rows of row_tokens + 1 tokens, starting with document `first`: each document in turn
// contributes min(up to the next document, max_seq_len, what is left of the row) tokens; the rest of a cut
// document is dropped and the next row starts with the next document. Empty if the shard's documents do not
// suffice for all rows: the reference drops the rows of such a call on every rank (BOSFinder.next_batch in
// train_gpt.py of record 43).
std::optional<StepPlan> plan_step(const Documents& documents, int64_t first, int64_t rows, int64_t row_tokens,
                                  int64_t max_seq_len);

// The same of a stream of `tokens` tokens cut into sequences of `sequence_tokens` wherever documents begin
// (track 3): the rows are one run of tokens from token `first` on, `next_document` is the token after it.
// Empty unless the stream holds two tokens more than the run, as train_gpt_simple.py has it.
std::optional<StepPlan> plan_stream_step(int64_t tokens, int64_t first, int64_t rows, int64_t row_tokens,
                                         int64_t sequence_tokens);

}  // namespace speedrun
