#include "util/line_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "util/error.h"

namespace speedrun {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* action) {
    throw UserError(path.string() + ": cannot " + action + ": " + std::strerror(errno));
}

// A device (/dev/full, /dev/stderr) is written where it is; a regular file must be new.
int open_flags(const std::filesystem::path& path) {
    std::error_code ignored;
    const auto type = std::filesystem::status(path, ignored).type();
    const bool device =
        type == std::filesystem::file_type::character || type == std::filesystem::file_type::fifo;
    return O_WRONLY | O_CLOEXEC | (device ? 0 : O_CREAT | O_EXCL);
}

}  // namespace

LineFile::LineFile(const std::filesystem::path& path) : path_(path) {
    fd_ = ::open(path.c_str(), open_flags(path), 0666);
    if (fd_ < 0) fail(path, "create");
}

LineFile::LineFile(const std::filesystem::path& path, uint64_t keep) : path_(path), bytes_(keep) {
    fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) fail(path, "open");
    const off_t size = ::lseek(fd_, 0, SEEK_END), kept = static_cast<off_t>(keep);
    const bool cut = size >= kept && ::ftruncate(fd_, kept) == 0 && ::lseek(fd_, kept, SEEK_SET) == kept;
    if (cut) return;
    ::close(std::exchange(fd_, -1));
    if (size >= kept) fail(path, "cut");
    throw UserError(fmt::format("{}: has {} bytes, and should go on after {}", path.string(), size, keep));
}

LineFile::LineFile(LineFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), bytes_(other.bytes_) {}

LineFile::~LineFile() {
    if (fd_ >= 0) ::close(fd_);
}

void LineFile::line(std::string_view text) {
    std::string bytes(text);
    bytes += '\n';
    for (size_t at = 0; at < bytes.size();) {
        const ssize_t written = ::write(fd_, bytes.data() + at, bytes.size() - at);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail(path_, "write");
        at += static_cast<size_t>(written);
        bytes_ += static_cast<uint64_t>(written);
    }
}

}  // namespace speedrun
