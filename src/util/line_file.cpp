#include "util/line_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "util/error.h"
#include "util/files.h"

namespace speedrun {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* action) {
    throw UserError(path.string() + ": cannot " + action + ": " + std::strerror(errno));
}

// A device (/dev/full, /dev/stderr) is written where it is; a regular file must be new.
int open_flags(const std::filesystem::path& path) {
    const bool device = files::kind(path) == files::Kind::other;
    return O_WRONLY | O_CLOEXEC | (device ? 0 : O_CREAT | O_EXCL);
}

// Bytes of a file of `size` up to the end of its last whole line.
off_t whole_lines(int fd, off_t size) {
    std::array<char, 4096> piece{};
    for (off_t end = size; end > 0;) {
        const auto length = std::min<off_t>(end, std::ssize(piece));
        const ssize_t got = ::pread(fd, piece.data(), static_cast<size_t>(length), end - length);
        if (got <= 0) return 0;
        const std::string_view text(piece.data(), static_cast<size_t>(got));
        if (const size_t at = text.rfind('\n'); at != std::string_view::npos)
            return end - length + static_cast<off_t>(at) + 1;
        end -= length;
    }
    return 0;
}

}  // namespace

LineFile::LineFile(const std::filesystem::path& path) : path_(path) {
    fd_ = ::open(path.c_str(), open_flags(path), 0666);
    if (fd_ < 0) fail(path, "create");
}

LineFile::LineFile(const std::filesystem::path& path, uint64_t keep) : path_(path) {
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) fail(path, "open");
    const off_t size = ::lseek(fd_, 0, SEEK_END);
    const off_t kept = size < static_cast<off_t>(keep) ? whole_lines(fd_, size) : static_cast<off_t>(keep);
    bytes_ = static_cast<uint64_t>(kept);
    if (size >= 0 && ::ftruncate(fd_, kept) == 0 && ::lseek(fd_, kept, SEEK_SET) == kept) return;
    ::close(std::exchange(fd_, -1));
    fail(path, "cut");
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
