#include "data/shard.h"

#include <fmt/core.h>
#include <glob.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "util/atomic_file.h"
#include "util/error.h"
#include "util/files.h"

namespace speedrun {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are mapped, not converted");

using Header = std::array<int32_t, 256>;
static_assert(sizeof(Header) == kShardHeaderBytes);

[[noreturn]] void fail_field(const std::filesystem::path& path, int64_t offset, const std::string& field,
                             int64_t found, const std::string& expected) {
    throw UserError(
        fmt::format("{}: byte {}: {} is {}, expected {}", path.string(), offset, field, found, expected));
}

Header read_header(const std::filesystem::path& path, std::span<const std::byte> bytes) {
    if (bytes.size() < kShardHeaderBytes) {
        throw UserError(fmt::format("{}: the file has {} bytes, a shard starts with a header of {}",
                                    path.string(), bytes.size(), kShardHeaderBytes));
    }
    Header header{};
    std::memcpy(header.data(), bytes.data(), sizeof(header));
    return header;
}

int64_t checked_count(const Header& header, const std::filesystem::path& path, int64_t size) {
    if (header[0] != kShardMagic) fail_field(path, 0, "magic", header[0], std::to_string(kShardMagic));
    if (header[1] != kShardVersion) fail_field(path, 4, "version", header[1], std::to_string(kShardVersion));
    const int64_t count = header[2];
    const int64_t held = size - kShardHeaderBytes;
    if (count < 0 || count * 2 != held) {
        fail_field(path, 8, "token count", count,
                   fmt::format("{}{} from the file's size of {} bytes", held / 2,
                               held % 2 ? " and a half" : "", size));
    }
    return count;
}

}  // namespace

Shard::Shard(std::filesystem::path path) : file_(std::move(path)) {
    const auto bytes = file_.bytes();
    const auto size = static_cast<int64_t>(bytes.size());
    const int64_t count = checked_count(read_header(file_.path(), bytes), file_.path(), size);
    tokens_ = {reinterpret_cast<const uint16_t*>(bytes.data() + kShardHeaderBytes),
               static_cast<size_t>(count)};
}

void Shard::check_tokens(int64_t vocab_size) const {
    uint16_t largest = 0;
    for (const uint16_t token : tokens_) largest = std::max(largest, token);
    check_unchanged();
    if (largest < vocab_size || tokens_.empty()) return;
    const auto bad =
        std::find_if(tokens_.begin(), tokens_.end(), [&](uint16_t t) { return t >= vocab_size; });
    fail_field(path(), kShardHeaderBytes + 2 * (bad - tokens_.begin()), "token", *bad,
               "less than the vocabulary of " + std::to_string(vocab_size));
}

std::vector<std::filesystem::path> find_shards(const std::string& pattern) {
    if (files::is_file(pattern)) return {pattern};
    struct Matches {
        glob_t g{};
        ~Matches() { ::globfree(&g); }
    } matches;
    const int status = ::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &matches.g);
    if (status == GLOB_NOMATCH || (status == 0 && matches.g.gl_pathc == 0)) {
        throw UserError("no shard matches '" + pattern + "' (working directory " +
                        files::working_folder().string() + ")");
    }
    if (status != 0) throw UserError("cannot list the shards '" + pattern + "'");
    std::vector<std::string> names(matches.g.gl_pathv, matches.g.gl_pathv + matches.g.gl_pathc);
    std::ranges::sort(names);  // as texts, and not folder by folder: that is the reference's order
    return {names.begin(), names.end()};
}

void write_shard(const std::filesystem::path& path, std::span<const uint16_t> tokens, Overwrite overwrite) {
    if (tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
        throw UserError(fmt::format("{}: {} tokens are more than a shard's header can count (2147483647)",
                                    path.string(), tokens.size()));
    }
    if (overwrite == Overwrite::no && files::exists(path)) {
        throw UserError(path.string() + ": exists already, and is not overwritten");
    }
    Header header{};
    header[0] = kShardMagic;
    header[1] = kShardVersion;
    header[2] = static_cast<int32_t>(tokens.size());
    AtomicFile file(path);
    file.write(std::as_bytes(std::span(header)));
    file.write(std::as_bytes(tokens));
    file.commit();
}

std::vector<uint32_t> bos_index(std::span<const uint16_t> tokens, uint16_t bos_id) {
    // The compiler turns the inner loop into compares of whole vector registers; a block is looked at again
    // only where one of its tokens matched.
    constexpr size_t block = 64;
    std::vector<uint32_t> found;
    const size_t whole = tokens.size() / block * block;
    for (size_t at = 0; at < whole; at += block) {
        uint16_t any = 0;
        for (size_t j = 0; j < block; ++j)
            any |= static_cast<uint16_t>(tokens[at + j] == bos_id ? 0xFFFF : 0);
        if (any == 0) continue;
        for (size_t j = at; j < at + block; ++j) {
            if (tokens[j] == bos_id) found.push_back(static_cast<uint32_t>(j));
        }
    }
    for (size_t j = whole; j < tokens.size(); ++j) {
        if (tokens[j] == bos_id) found.push_back(static_cast<uint32_t>(j));
    }
    return found;
}

}  // namespace speedrun
