#pragma once
// A shard with the starts of its documents, and a list of shards opened one after the other.
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <vector>

#include "data/packing.h"
#include "data/shard.h"

namespace speedrun {

// What a loader must know of the data besides the files.
struct DataLayout {
    int64_t vocab_size = 0;  // every token is < vocab_size
    uint16_t bos_id = 0;     // first token of every document
    // Rows are cut from the stream of tokens in sequences of so many, wherever documents begin; 0: they are
    // made of documents.
    int64_t sequence_tokens = 0;
};

struct IndexedShard {
    Shard shard;
    std::vector<uint32_t> starts;  // positions of bos_id, where rows are made of documents

    Documents documents() const { return {starts, static_cast<int64_t>(shard.tokens().size())}; }
};

// Maps the shard, checks that every token is in the vocabulary, indexes it; afterwards its pages are mapped
// and in memory. UserError if it is malformed, has a token >= vocab_size or, where documents
// matter, no bos_id.
std::shared_ptr<const IndexedShard> load_indexed_shard(const std::filesystem::path& path,
                                                       const DataLayout& layout);

enum class ReadAhead { no, yes };

// The shards of a run in order. Holds the current one; with ReadAhead::yes a background task has the next one
// ready.
class ShardSequence {
  public:
    ShardSequence(std::vector<std::filesystem::path> files, DataLayout layout, ReadAhead read_ahead);

    int64_t size() const { return static_cast<int64_t>(files_.size()); }
    const std::vector<std::filesystem::path>& files() const { return files_; }

    // Shard `index`, opened if it is not the current one. Errors of the background task appear here.
    const IndexedShard& at(int64_t index);

  private:
    std::shared_ptr<const IndexedShard> open(int64_t index);

    std::vector<std::filesystem::path> files_;
    DataLayout layout_;
    ReadAhead read_ahead_;
    int64_t current_index_ = -1, next_index_ = -1;
    std::shared_ptr<const IndexedShard> current_;
    std::future<std::shared_ptr<const IndexedShard>> next_;
};

}  // namespace speedrun
