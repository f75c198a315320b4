#include "util/line_file.h"

#include <fcntl.h>
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

LineFile::LineFile(LineFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

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
    }
}

}  // namespace speedrun
