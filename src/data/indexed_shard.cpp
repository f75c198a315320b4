#include "data/indexed_shard.h"

#include <fmt/core.h>
#include <string>
#include <utility>

#include "util/error.h"

namespace speedrun {

std::shared_ptr<const IndexedShard> load_indexed_shard(const std::filesystem::path& path,
                                                       const DataLayout& layout) {
    Shard shard(path);
    shard.prefetch();
    shard.check_tokens(layout.vocab_size);
    const bool stream = layout.sequence_tokens > 0;
    auto starts = stream ? std::vector<uint32_t>() : bos_index(shard.tokens(), layout.bos_id);
    shard.check_unchanged();
    if (starts.empty() && !stream) {
        throw UserError(fmt::format("{}: none of its {} tokens starts a document (data.bos_id is {})",
                                    path.string(), shard.tokens().size(), layout.bos_id));
    }
    return std::make_shared<const IndexedShard>(IndexedShard{std::move(shard), std::move(starts)});
}

ShardSequence::ShardSequence(std::vector<std::filesystem::path> files, DataLayout layout,
                             ReadAhead read_ahead)
    : files_(std::move(files)), layout_(layout), read_ahead_(read_ahead) {
    check(!files_.empty(), "a sequence of no shards");
}

std::shared_ptr<const IndexedShard> ShardSequence::open(int64_t index) {
    if (next_.valid()) {
        auto next = std::move(next_);
        if (next_index_ == index) return next.get();
        next.wait();  // read ahead for a position that seek() left: neither its shard nor its error matters
    }
    return load_indexed_shard(files_[static_cast<size_t>(index)], layout_);
}

const IndexedShard& ShardSequence::at(int64_t index) {
    check(index >= 0 && index < size(), "shard index out of range");
    if (index != current_index_) {
        current_ = open(index);
        current_index_ = index;
        if (read_ahead_ == ReadAhead::yes && index + 1 < size()) {
            next_index_ = index + 1;
            next_ = std::async(std::launch::async, load_indexed_shard,
                               files_[static_cast<size_t>(next_index_)], layout_);
        }
    }
    return *current_;
}

}  // namespace speedrun
