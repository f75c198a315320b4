#include "train/checkpoint/find.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <span>
#include <string>

#include "util/error.h"
#include "util/files.h"
#include "util/positioned_file.h"
#include "util/xxhash64.h"

namespace speedrun {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "step_";
constexpr size_t kDigits = 8;

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

// Before anything is read: a device has no end, and a file may be of any size without having its bytes.
uint64_t size_of(const OpenFile& file, const fs::path& path) {
    struct stat status {};
    if (::fstat(file.fd(), &status) != 0)
        throw UserError(path.string() + ": cannot be looked at: " + std::strerror(errno));
    if (!S_ISREG(status.st_mode)) throw UserError(path.string() + ": is not a regular file");
    return static_cast<uint64_t>(status.st_size);
}

void require_size(const fs::path& path, uint64_t found, uint64_t expected) {
    if (found == expected) return;
    throw UserError(path.string() + ": has " + std::to_string(found) + " bytes, not the " +
                    std::to_string(expected) + " that were written");
}

}  // namespace

std::string checkpoint_name(int64_t step) {
    std::string digits = std::to_string(step);
    digits.insert(0, digits.size() < kDigits ? kDigits - digits.size() : 0, '0');
    return std::string(kPrefix) + digits;
}

std::optional<int64_t> step_of_name(const fs::path& folder) {
    const std::string name = folder.filename().string();
    if (!name.starts_with(kPrefix)) return std::nullopt;
    int64_t step = 0;
    const char* const end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (error != std::errc() || stop != end || name != checkpoint_name(step)) return std::nullopt;
    return step;
}

std::vector<fs::path> checkpoint_folders(const fs::path& folder) {
    std::vector<fs::path> found;
    for (const fs::path& entry : files::list_if_there(folder))
        if (step_of_name(entry) && files::is_folder(entry)) found.push_back(entry);
    std::ranges::sort(found, std::greater(), [](const fs::path& at) { return *step_of_name(at); });
    return found;
}

CheckpointManifest::File measure_file(const fs::path& path, bool from_disk,
                                      std::optional<uint64_t> expected) {
    // O_NONBLOCK: a pipe of that name is not waited for.
    constexpr int how = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    int opened = from_disk ? ::open(path.c_str(), how | O_DIRECT) : -1;
    if (opened < 0) opened = ::open(path.c_str(), how);
    if (opened < 0) throw UserError(path.string() + ": cannot be read: " + std::strerror(errno));
    const OpenFile file(opened);
    const uint64_t size = size_of(file, path);
    if (expected) require_size(path, size, *expected);
    std::string room((size_t{1} << 21) + PositionedFile::block, '\0');
    const std::span<char> buffer = align(room);
    XxHash64 hash;
    CheckpointManifest::File measured;
    for (std::span<char> bytes; !(bytes = read_some(file.fd(), buffer, path)).empty();) {
        hash.update({bytes.data(), bytes.size()});
        measured.bytes += bytes.size();
        if (measured.bytes > size) throw UserError(path.string() + ": grows while it is read");
    }
    measured.xxh64 = hex64(hash.digest());
    return measured;
}

std::optional<CheckpointManifest> try_read_manifest(const fs::path& folder) {
    try {
        const CheckpointManifest manifest = read_manifest(folder / "checkpoint.json");
        if (step_of_name(folder) == manifest.step) return manifest;
    } catch (const UserError&) {
    }
    return std::nullopt;
}

Checkpoint open_checkpoint(const fs::path& folder) {
    Checkpoint found{folder, read_manifest(folder / "checkpoint.json")};
    require_files(found);
    for (const auto& [name, expected] : found.manifest.files) {
        const CheckpointManifest::File file =
            measure_file(folder / name, /*from_disk=*/false, expected.bytes);
        require_size(folder / name, file.bytes, expected.bytes);
        if (file.xxh64 != expected.xxh64)
            throw UserError((folder / name).string() + ": its bytes are not those that were written (hash " +
                            file.xxh64 + ", not " + expected.xxh64 + ")");
    }
    return found;
}

std::optional<Checkpoint> find_checkpoint(const fs::path& folder, std::vector<std::string>& passed_over) {
    for (const fs::path& candidate : checkpoint_folders(folder)) {
        try {
            Checkpoint found = open_checkpoint(candidate);
            if (found.manifest.step == step_of_name(candidate)) return found;
            passed_over.push_back(candidate.string() + ": is a copy of the checkpoint after step " +
                                  std::to_string(found.manifest.step));
        } catch (const UserError& error) {
            passed_over.emplace_back(error.what());
        }
    }
    return std::nullopt;
}

}  // namespace speedrun
