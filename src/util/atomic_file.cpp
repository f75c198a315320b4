#include "util/atomic_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <string>
#include <utility>

#include "util/error.h"
#include "util/files.h"
#include "util/positioned_file.h"

namespace speedrun {
namespace {

std::filesystem::path folder_of(const std::filesystem::path& path) {
    return path.has_parent_path() ? path.parent_path() : ".";
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path, Sync sync) : path_(std::move(path)), sync_(sync) {
    const files::Kind there = files::kind(path_);
    if (there != files::Kind::none && there != files::Kind::file) {
        throw UserError(path_.string() + ": cannot be written: it exists and is not a regular file");
    }
    std::random_device random;
    const std::string suffix = fmt::format(".tmp-{}-{}", ::getpid(), random());
    temporary_ = folder_of(path_) / ("." + path_.filename().string() + suffix);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0) fail("cannot be created", errno);
}

AtomicFile::~AtomicFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
    check(fd_ >= 0, "write to a committed file");
    while (!bytes.empty()) {
        const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail("cannot be written", errno);
        bytes = bytes.subspan(static_cast<size_t>(count));
        written_ += static_cast<size_t>(count);
    }
}

void AtomicFile::commit() {
    check(fd_ >= 0, "a file is committed once");
    if (sync_ == Sync::yes && ::fsync(fd_) != 0) fail("cannot be synced to disk", errno);
    const int fd = std::exchange(fd_, -1);
    if (::close(fd) != 0) fail("cannot be closed", errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be renamed into place", errno);
    temporary_.clear();
    if (sync_ == Sync::yes) sync_folder(folder_of(path_));
}

void write_atomically(const std::filesystem::path& path, std::string_view text) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
}

void AtomicFile::fail(const char* doing, int error) const {
    std::string text = path_.string() + ": " + doing + ": " + std::strerror(error);
    if (written_ > 0) text += " (after " + std::to_string(written_) + " bytes)";
    throw UserError(text);
}

}  // namespace speedrun
