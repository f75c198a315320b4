#include "data/shard.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include "util/atomic_file.h"
#include "util/error.h"

namespace speedrun {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are mapped, not converted");

using Header = std::array<int32_t, 256>;
static_assert(sizeof(Header) == kShardHeaderBytes);

class FileDescriptor {
  public:
    explicit FileDescriptor(int fd) : fd_(fd) {}
    ~FileDescriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

[[noreturn]] void fail_errno(const std::filesystem::path& path, const std::string& what) {
    throw UserError(path.string() + ": " + what + ": " + std::generic_category().message(errno));
}

[[noreturn]] void fail_field(const std::filesystem::path& path, int64_t offset, const std::string& field,
                             int64_t found, const std::string& expected) {
    throw UserError(path.string() + ": byte " + std::to_string(offset) + ": " + field + " is " +
                    std::to_string(found) + ", expected " + expected);
}

int64_t file_size(const FileDescriptor& fd, const std::filesystem::path& path) {
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) fail_errno(path, "cannot read the size of the shard");
    if (!S_ISREG(status.st_mode)) throw UserError(path.string() + ": not a regular file, expected a shard");
    return status.st_size;
}

Header read_header(const FileDescriptor& fd, const std::filesystem::path& path, int64_t size) {
    if (size < kShardHeaderBytes) {
        throw UserError(path.string() + ": the file has " + std::to_string(size) +
                        " bytes, a shard starts with a header of " + std::to_string(kShardHeaderBytes));
    }
    Header header{};
    const ssize_t n = ::pread(fd.get(), header.data(), sizeof(header), 0);
    if (n < 0) fail_errno(path, "cannot read the shard's header");
    if (n != static_cast<ssize_t>(sizeof(header)))
        throw UserError(path.string() + ": the header is cut short");
    return header;
}

int64_t checked_count(const Header& header, const std::filesystem::path& path, int64_t size) {
    if (header[0] != kShardMagic) fail_field(path, 0, "magic", header[0], std::to_string(kShardMagic));
    if (header[1] != kShardVersion) fail_field(path, 4, "version", header[1], std::to_string(kShardVersion));
    const int64_t count = header[2];
    const int64_t held = size - kShardHeaderBytes;
    if (count < 0 || count * 2 != held) {
        fail_field(path, 8, "token count", count,
                   std::to_string(held / 2) + (held % 2 ? " and a half" : "") + " from the file's size of " +
                       std::to_string(size) + " bytes");
    }
    return count;
}

}  // namespace

Shard::Shard(std::filesystem::path path) : path_(std::move(path)) {
    const FileDescriptor fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) fail_errno(path_, "cannot open the shard");
    const int64_t size = file_size(fd, path_);
    const int64_t count = checked_count(read_header(fd, path_, size), path_, size);
    void* map = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, fd.get(), 0);
    if (map == MAP_FAILED) fail_errno(path_, "cannot map the shard");
    map_ = map;
    map_bytes_ = static_cast<size_t>(size);
    const auto* bytes = static_cast<const std::byte*>(map) + kShardHeaderBytes;
    tokens_ = {reinterpret_cast<const uint16_t*>(bytes), static_cast<size_t>(count)};
}

Shard::~Shard() {
    if (map_ != nullptr) ::munmap(map_, map_bytes_);
}

Shard::Shard(Shard&& other) noexcept
    : path_(std::move(other.path_)),
      map_(std::exchange(other.map_, nullptr)),
      map_bytes_(std::exchange(other.map_bytes_, 0)),
      tokens_(std::exchange(other.tokens_, {})) {}

Shard& Shard::operator=(Shard&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(map_, other.map_);
    std::swap(map_bytes_, other.map_bytes_);
    std::swap(tokens_, other.tokens_);
    return *this;
}

void Shard::check_tokens(int64_t vocab_size) const {
    uint16_t largest = 0;
    for (const uint16_t token : tokens_) largest = std::max(largest, token);
    if (largest < vocab_size || tokens_.empty()) return;
    const auto bad =
        std::find_if(tokens_.begin(), tokens_.end(), [&](uint16_t t) { return t >= vocab_size; });
    fail_field(path_, kShardHeaderBytes + 2 * (bad - tokens_.begin()), "token", *bad,
               "less than the vocabulary of " + std::to_string(vocab_size));
}

void Shard::prefetch() const {
    ::madvise(map_, map_bytes_, MADV_WILLNEED);
}

std::vector<std::filesystem::path> find_shards(const std::string& pattern) {
    struct Matches {
        glob_t g{};
        ~Matches() { ::globfree(&g); }
    } matches;
    const int status = ::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &matches.g);
    if (status == GLOB_NOMATCH || (status == 0 && matches.g.gl_pathc == 0)) {
        throw UserError("no shard matches '" + pattern + "' (working directory " +
                        std::filesystem::current_path().string() + ")");
    }
    if (status != 0) throw UserError("cannot list the shards '" + pattern + "'");
    std::vector<std::filesystem::path> files(matches.g.gl_pathv, matches.g.gl_pathv + matches.g.gl_pathc);
    std::sort(files.begin(), files.end());
    return files;
}

void write_shard(const std::filesystem::path& path, std::span<const uint16_t> tokens, Overwrite overwrite) {
    if (tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
        throw UserError(path.string() + ": " + std::to_string(tokens.size()) +
                        " tokens are more than a shard's header can count (2147483647)");
    }
    if (overwrite == Overwrite::no && std::filesystem::exists(path)) {
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
