#pragma once
// The track's shard files: 256 little-endian int32 (magic 20240520, version 1, token count, zeros), then the
// tokens as little-endian uint16.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "util/mapped_file.h"

namespace speedrun {

inline constexpr int32_t kShardMagic = 20240520;
inline constexpr int32_t kShardVersion = 1;
inline constexpr int64_t kShardHeaderBytes = 256 * sizeof(int32_t);

// One shard, memory-mapped read-only. Movable; unmapped when destroyed. (See MappedFile for one that is cut
// while it is in use.)
class Shard {
  public:
    // Maps the file after checking magic, version and that the token count agrees with the file's size.
    // Throws UserError with file, byte offset, value found and value expected.
    explicit Shard(std::filesystem::path path);

    const std::filesystem::path& path() const { return file_.path(); }
    std::span<const uint16_t> tokens() const { return tokens_; }

    // Throws UserError naming the first token >= vocab_size and its byte offset. One pass at memory speed.
    void check_tokens(int64_t vocab_size) const;

    // UserError where the file was cut while it was in use: what has been read of it is not to be used.
    void check_unchanged() const { file_.check_unchanged(); }

    // Asks the kernel to read the whole file now.
    void prefetch() const { file_.prefetch(); }

  private:
    MappedFile file_;
    std::span<const uint16_t> tokens_;
};

// The file of that very name, else the files that match it as a POSIX glob pattern, in the order of their
// names as texts (Python's sorted(glob.glob(pattern))). UserError naming the pattern if there are none.
std::vector<std::filesystem::path> find_shards(const std::string& pattern);

enum class Overwrite { no, yes };

// Writes a shard under a temporary name in the same folder, fsyncs and renames it, so that `path` is either
// absent, the old file or the whole new one. UserError if `path` exists (unless overwrite), cannot be
// written, or tokens are more than the header's int32 can count.
void write_shard(const std::filesystem::path& path, std::span<const uint16_t> tokens,
                 Overwrite overwrite = Overwrite::no);

// Positions of `bos_id`, ascending. Memory speed where it is rare, as at the starts of documents.
std::vector<uint32_t> bos_index(std::span<const uint16_t> tokens, uint16_t bos_id);

}  // namespace speedrun
