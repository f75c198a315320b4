#include "util/positioned_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "util/error.h"

namespace speedrun {

PositionedFile::PositionedFile(std::filesystem::path path, uint64_t bytes) : path_(std::move(path)) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) fail("cannot be created", errno);
    const auto size = static_cast<off_t>(bytes);
    const int reserved = bytes == 0 ? 0 : ::fallocate(fd_, 0, 0, size) == 0 ? 0 : errno;
    // A file system that cannot reserve only sets the size; a full disk then shows when data is written.
    const bool cannot = reserved == EOPNOTSUPP || reserved == ENOSYS;
    const int error = cannot && ::ftruncate(fd_, size) != 0 ? errno : cannot ? 0 : reserved;
    if (error != 0) {
        ::close(std::exchange(fd_, -1));
        fail("cannot be given its size", error);
    }
    direct_ = ::open(path_.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC);
}

PositionedFile::~PositionedFile() {
    if (direct_ >= 0) ::close(direct_);
    if (fd_ >= 0) ::close(fd_);
}

PositionedFile::PositionedFile(PositionedFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      direct_(std::exchange(other.direct_, -1)) {}

void PositionedFile::write(std::span<const std::byte> bytes, uint64_t offset) {
    const auto place = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(bytes.data()));
    const size_t head = (block - offset % block) % block;
    if (direct_ < 0 || place % block != offset % block || bytes.size() < head + block)
        return write_to(fd_, bytes, offset);
    const size_t whole = (bytes.size() - head) / block * block;
    write_to(fd_, bytes.first(head), offset);
    write_to(direct_, bytes.subspan(head, whole), offset + head);
    write_to(fd_, bytes.subspan(head + whole), offset + head + whole);
}

void PositionedFile::write_to(int fd, std::span<const std::byte> bytes, uint64_t offset) {
    while (!bytes.empty()) {
        constexpr size_t most = size_t{1} << 26;
        const ssize_t count =
            ::pwrite(fd, bytes.data(), std::min(bytes.size(), most), static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR) continue;
        // A file system may refuse so late, or stop within a block.
        if (count < 0 && errno == EINVAL && fd != fd_) return write_to(fd_, bytes, offset);
        if (count < 0) fail("cannot be written", errno);
        bytes = bytes.subspan(static_cast<size_t>(count));
        offset += static_cast<uint64_t>(count);
    }
}

void PositionedFile::sync() {
    if (::fsync(fd_) != 0) fail("cannot be synced to disk", errno);
}

void PositionedFile::fail(const char* doing, int error) const {
    throw UserError(path_.string() + ": " + doing + ": " + std::strerror(error));
}

void sync_file(const std::filesystem::path& file) {
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const int error = fd < 0 ? errno : ::fdatasync(fd) != 0 ? errno : 0;
    if (fd >= 0) ::close(fd);
    if (error != 0) throw UserError(file.string() + ": cannot be synced to disk: " + std::strerror(error));
}

void sync_folder(const std::filesystem::path& folder) {
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    // EINVAL: a file system that cannot sync folders has nothing to sync.
    const int error = fd < 0 ? errno : ::fsync(fd) != 0 && errno != EINVAL ? errno : 0;
    if (fd >= 0) ::close(fd);
    if (error != 0) throw UserError(folder.string() + ": cannot be synced to disk: " + std::strerror(error));
}

}  // namespace speedrun
