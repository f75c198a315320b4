#include "train/checkpoint/find.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>

#include "util/error.h"
#include "util/positioned_file.h"
#include "util/xxhash64.h"

namespace speedrun {

namespace fs = std::filesystem;

std::vector<fs::path> checkpoint_folders(const fs::path& folder) {
    std::vector<fs::path> found;
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
        if (at->is_directory() && at->path().filename().string().starts_with("step_"))
            found.push_back(at->path());
    // Steps are written with leading zeros; longer names are later ones.
    std::ranges::sort(found, [](const fs::path& a, const fs::path& b) {
        const std::string x = a.filename().string(), y = b.filename().string();
        return std::pair(x.size(), x) > std::pair(y.size(), y);
    });
    return found;
}

namespace {

// What a checkpoint has whatever else it has.
void require_files(const Checkpoint& checkpoint) {
    const CheckpointManifest& manifest = checkpoint.manifest;
    std::vector<std::string> names{"weights.safetensors", "optimizer.safetensors", "config.json"};
    for (int64_t rank = 0; manifest.pending_gradients && rank < manifest.world_size; ++rank)
        names.push_back("gradients_" + std::to_string(rank) + ".safetensors");
    for (const std::string& name : names)
        if (!manifest.files.contains(name))
            throw UserError((checkpoint.folder / "checkpoint.json").string() + ": does not name " + name);
}

}  // namespace

namespace {

// The next bytes of an open file; none at its end. One that is read past the page cache and has come to where
// its file system refuses that, such as an end within a block, goes on through the cache.
std::span<char> read_some(int fd, std::span<char> buffer, const fs::path& path) {
    while (true) {
        const ssize_t got = ::read(fd, buffer.data(), buffer.size());
        if (got >= 0) return buffer.first(static_cast<size_t>(got));
        const int error = errno, flags = ::fcntl(fd, F_GETFL);
        if (error == EINVAL && (flags & O_DIRECT) != 0 && ::fcntl(fd, F_SETFL, flags & ~O_DIRECT) == 0)
            continue;
        if (error != EINTR) throw UserError(path.string() + ": cannot be read: " + std::strerror(error));
    }
}

class OpenFile {
  public:
    explicit OpenFile(int fd) : fd_(fd) {}
    ~OpenFile() { ::close(fd_); }
    OpenFile(const OpenFile&) = delete;
    OpenFile& operator=(const OpenFile&) = delete;
    int fd() const { return fd_; }

  private:
    int fd_;
};

// Room that begins with a block.
std::span<char> align(std::string& room) {
    constexpr size_t block = PositionedFile::block;
    const size_t before = (block - reinterpret_cast<uintptr_t>(room.data()) % block) % block;
    return std::span(room).subspan(before, room.size() - block);
}

}  // namespace

CheckpointManifest::File measure_file(const fs::path& path, bool from_disk) {
    // O_NONBLOCK: a pipe of that name is not waited for.
    constexpr int how = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    int opened = from_disk ? ::open(path.c_str(), how | O_DIRECT) : -1;
    if (opened < 0) opened = ::open(path.c_str(), how);
    if (opened < 0) throw UserError(path.string() + ": cannot be read: " + std::strerror(errno));
    const OpenFile file(opened);
    std::string room((size_t{1} << 21) + PositionedFile::block, '\0');
    const std::span<char> buffer = align(room);
    XxHash64 hash;
    CheckpointManifest::File measured;
    for (std::span<char> bytes; !(bytes = read_some(file.fd(), buffer, path)).empty();) {
        hash.update({bytes.data(), bytes.size()});
        measured.bytes += bytes.size();
    }
    measured.xxh64 = hex64(hash.digest());
    return measured;
}

std::optional<CheckpointManifest> try_read_manifest(const fs::path& folder) {
    try {
        return read_manifest(folder / "checkpoint.json");
    } catch (const UserError&) {
        return std::nullopt;
    }
}

Checkpoint open_checkpoint(const fs::path& folder) {
    Checkpoint found{folder, read_manifest(folder / "checkpoint.json")};
    require_files(found);
    for (const auto& [name, expected] : found.manifest.files) {
        const CheckpointManifest::File file = measure_file(folder / name);
        if (file.bytes != expected.bytes)
            throw UserError((folder / name).string() + ": has " + std::to_string(file.bytes) +
                            " bytes, not the " + std::to_string(expected.bytes) + " that were written");
        if (file.xxh64 != expected.xxh64)
            throw UserError((folder / name).string() + ": its bytes are not those that were written (hash " +
                            file.xxh64 + ", not " + expected.xxh64 + ")");
    }
    return found;
}

std::optional<Checkpoint> find_checkpoint(const fs::path& folder, std::vector<std::string>& passed_over) {
    for (const fs::path& candidate : checkpoint_folders(folder)) {
        try {
            return open_checkpoint(candidate);
        } catch (const UserError& error) {
            passed_over.emplace_back(error.what());
        }
    }
    return std::nullopt;
}

}  // namespace speedrun
