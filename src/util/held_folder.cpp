#include "util/held_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "util/error.h"
#include "util/files.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// Whether `path` leads to the folder that is open as `fd`.
bool leads_to(const fs::path& path, int fd) {
    struct stat named {
    }, held{};
    return ::stat(path.c_str(), &named) == 0 && ::fstat(fd, &held) == 0 && named.st_ino == held.st_ino &&
           named.st_dev == held.st_dev;
}

// The name that the kernel has for an open folder, if it still leads to it.
std::optional<fs::path> present_name(int fd) {
    auto name = files::link_target("/proc/self/fd/" + std::to_string(fd));
    return name && leads_to(*name, fd) ? name : std::nullopt;
}

}  // namespace

HeldFolder::HeldFolder(fs::path path)
    : path_(std::move(path)), fd_(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (fd_ < 0) throw UserError(path_.string() + ": cannot be opened: " + std::strerror(errno));
}

HeldFolder::~HeldFolder() {
    if (fd_ >= 0) ::close(fd_);
}

HeldFolder::HeldFolder(HeldFolder&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

HeldFolder& HeldFolder::operator=(HeldFolder&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(fd_, other.fd_);
    return *this;
}

bool HeldFolder::in_place() const {
    return leads_to(path_, fd_);
}

void HeldFolder::require_in_place() const {
    if (in_place()) return;
    const auto now = present_name(fd_);
    throw UserError(path_.string() + ": was " + (now ? "moved to " + now->string() : "removed") +
                    " while it was in use");
}

fs::path HeldFolder::where() const {
    if (in_place()) return path_;
    if (auto now = present_name(fd_)) return *std::move(now);
    throw UserError(path_.string() + ": was removed while it was in use");
}

}  // namespace speedrun
