#include "data/shard_identity.h"

#include <algorithm>

#include "util/mapped_file.h"
#include "util/utf8.h"
#include "util/xxhash64.h"

namespace speedrun {
namespace {

constexpr size_t kSamples = 64, kSampleBytes = 4096;

// Small files are read whole: their samples touch one another.
std::string hash_of(std::span<const std::byte> bytes) {
    XxHash64 hash;
    const auto add = [&](size_t from, size_t count) {
        hash.update({reinterpret_cast<const char*>(bytes.data()) + from, count});
    };
    if (bytes.size() <= kSamples * kSampleBytes) {
        add(0, bytes.size());
        return hex64(hash.digest());
    }
    const size_t last = bytes.size() - kSampleBytes;
    for (size_t i = 0; i < kSamples; ++i) add(last / (kSamples - 1) * i, kSampleBytes);
    add(last, kSampleBytes);
    return hex64(hash.digest());
}

ShardIdentity identify(const std::filesystem::path& path) {
    const MappedFile file(path);
    ShardIdentity shard{valid_utf8(path.filename().string()), file.bytes().size(), hash_of(file.bytes())};
    file.check_unchanged();
    return shard;
}

}  // namespace

std::vector<ShardIdentity> identify_shards(std::span<const std::filesystem::path> shards) {
    std::vector<ShardIdentity> identities;
    for (const auto& path : shards) identities.push_back(identify(path));
    return identities;
}

std::string shard_text(const ShardIdentity& shard) {
    return shard.name + " (" + std::to_string(shard.bytes) + " bytes, samples " + shard.xxh64 + ")";
}

std::string shards_text(std::span<const ShardIdentity> shards) {
    if (shards.size() == 1) return shard_text(shards.front());
    XxHash64 hash;
    uint64_t bytes = 0;
    for (const ShardIdentity& shard : shards) {
        bytes += shard.bytes;
        hash.update(std::to_string(shard.bytes) + " " + shard.xxh64 + "\n");
    }
    const std::string ends = shards.empty() ? "" : ", " + shards.front().name + " to " + shards.back().name;
    return std::to_string(shards.size()) + " shards" + ends + ", " + std::to_string(bytes) +
           " bytes, samples " + hex64(hash.digest());
}

}  // namespace speedrun
