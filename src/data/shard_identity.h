#pragma once
// What tells one shard from another without reading all of it.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace speedrun {

struct ShardIdentity {
    std::string name;    // of the file, without its folder
    uint64_t bytes = 0;  // of the file
    std::string xxh64;   // of its header and of 64 samples of 4 KiB spread over the rest, hex

    // Whether the contents are the same, as far as this tells; files may be renamed and moved.
    bool same_content(const ShardIdentity& other) const {
        return bytes == other.bytes && xxh64 == other.xxh64;
    }
    bool operator==(const ShardIdentity&) const = default;
};

// Of each shard, in order. UserError where one cannot be read.
std::vector<ShardIdentity> identify_shards(std::span<const std::filesystem::path> shards);

// "t_a.bin (18024 bytes, samples 00c4...)"
std::string shard_text(const ShardIdentity& shard);

// On one line, equal for lists of equal contents: "2 shards, a.bin to b.bin, 36048 bytes, samples 17d0...".
std::string shards_text(std::span<const ShardIdentity> shards);

}  // namespace speedrun
