#include "train/checkpoint/find.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "util/error.h"
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

CheckpointManifest::File measure_file(const fs::path& path) {
    // O_NONBLOCK: a pipe of that name is not waited for.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) throw UserError(path.string() + ": cannot be read: " + std::strerror(errno));
    XxHash64 hash;
    CheckpointManifest::File file;
    std::string buffer(size_t{1} << 20, '\0');
    ssize_t got = 0;
    while ((got = ::read(fd, buffer.data(), buffer.size())) > 0 || (got < 0 && errno == EINTR)) {
        if (got < 0) continue;
        hash.update(std::string_view(buffer).substr(0, static_cast<size_t>(got)));
        file.bytes += static_cast<uint64_t>(got);
    }
    const int error = got < 0 ? errno : 0;
    ::close(fd);
    if (error != 0) throw UserError(path.string() + ": cannot be read: " + std::strerror(error));
    file.xxh64 = hex64(hash.digest());
    return file;
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
