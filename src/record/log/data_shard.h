#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace speedrun {

// A file of tokens that a run has read.
struct DataShard {
    enum class Use { training, validation } use = Use::training;
    std::string path;
    uint64_t bytes = 0;
    std::string sha256;  // of the whole file, hex

    bool operator==(const DataShard&) const = default;
};

// "training shard: data/a.bin, 200001024 bytes, sha256 00b4..." and back; nullopt where `line` is none.
std::string data_shard_line(const DataShard& shard);
std::optional<DataShard> parse_data_shard_line(std::string_view line);

}  // namespace speedrun
