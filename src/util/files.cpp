#include "util/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>
#include <system_error>

#include "util/error.h"

namespace speedrun::files {
namespace {

// Throws unless `error` is none.
void require(const std::error_code& error, const fs::path& path, const char* doing) {
    if (error) throw UserError(path.string() + ": " + doing + ": " + error.message());
}

std::vector<fs::path> entries_of(const fs::path& folder, std::error_code& error) {
    std::vector<fs::path> entries;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
        entries.push_back(at->path());
    std::ranges::sort(entries, {}, [](const fs::path& entry) { return entry.native(); });
    return entries;
}

class Descriptor {
  public:
    explicit Descriptor(const fs::path& path, int flags = 0)
        : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags)) {}
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

[[noreturn]] void cannot_read(const fs::path& path) {
    throw UserError(path.string() + ": cannot be read: " + std::strerror(errno));
}

// Fills `room` as far as the file goes; returns how far that is.
size_t read_up_to(const Descriptor& in, const fs::path& path, std::span<char> room) {
    size_t at = 0;
    while (at < room.size()) {
        const ssize_t got = ::read(in.get(), room.data() + at, room.size() - at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) cannot_read(path);
        if (got == 0) break;
        at += static_cast<size_t>(got);
    }
    return at;
}

}  // namespace

Kind kind(const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    switch (status.type()) {
        case fs::file_type::not_found:
            return Kind::none;
        case fs::file_type::regular:
            return Kind::file;
        case fs::file_type::directory:
            return Kind::folder;
        case fs::file_type::none:
            require(error, path, "cannot be looked at");
            [[fallthrough]];
        default:
            return Kind::other;
    }
}

bool is_pipe(const fs::path& path) {
    std::error_code error;
    return fs::status(path, error).type() == fs::file_type::fifo;
}

uint64_t size(const fs::path& path) {
    std::error_code error;
    const auto bytes = fs::file_size(path, error);
    require(error, path, "has no size");
    return bytes;
}

std::string read(const fs::path& file, uint64_t most_bytes) {
    const Descriptor in(file, O_NONBLOCK);
    struct stat status {};
    if (in.get() < 0 || ::fstat(in.get(), &status) != 0) cannot_read(file);
    if (!S_ISREG(status.st_mode)) throw UserError(file.string() + ": is not a regular file");
    const auto size = static_cast<uint64_t>(status.st_size);
    if (size > most_bytes)
        throw UserError(file.string() + ": has " + std::to_string(size) + " bytes, at most " +
                        std::to_string(most_bytes) + " are allowed");
    std::string text(size, '\0');
    text.resize(read_up_to(in, file, text));  // it may have become shorter
    return text;
}

std::string read_any(const fs::path& file, uint64_t most_bytes) {
    const Descriptor in(file);
    if (in.get() < 0) cannot_read(file);
    constexpr size_t piece = size_t{1} << 16;
    std::string text;
    for (size_t got = piece; got == piece && text.size() <= most_bytes;) {
        text.resize(text.size() + piece);
        got = read_up_to(in, file, std::span(text).last(piece));
        text.resize(text.size() - piece + got);
    }
    if (text.size() > most_bytes)
        throw UserError(file.string() + ": larger than " + std::to_string(most_bytes) +
                        " bytes, the most allowed");
    return text;
}

std::vector<fs::path> list(const fs::path& folder) {
    std::error_code error;
    auto entries = entries_of(folder, error);
    require(error, folder, "cannot be listed");
    return entries;
}

std::vector<fs::path> list_if_there(const fs::path& folder) {
    std::error_code ignored;
    return entries_of(folder, ignored);
}

void make_folders(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    require(error, folder, "cannot be created");
    if (!is_folder(folder))
        throw UserError(folder.string() + ": cannot be created: there is something else of that name");
}

void rename(const fs::path& from, const fs::path& to) {
    std::error_code error;
    fs::rename(from, to, error);
    require(error, to, ("cannot take the place of " + from.filename().string()).c_str());
}

void remove(const fs::path& path) {
    std::error_code error;
    fs::remove(path, error);
    require(error, path, "cannot be removed");
}

void remove_all(const fs::path& path) {
    std::error_code error;
    fs::remove_all(path, error);
    require(error, path, "cannot be removed");
}

bool try_remove(const fs::path& path) noexcept {
    std::error_code error;
    fs::remove(path, error);
    return !error;
}

bool try_remove_all(const fs::path& path) noexcept try {
    std::error_code error;
    fs::remove_all(path, error);
    return !error;
} catch (const std::exception&) {  // no memory for the names on the way
    return false;
}

std::optional<fs::path> link_target(const fs::path& link) {
    std::error_code error;
    fs::path target = fs::read_symlink(link, error);
    if (error) return std::nullopt;
    return target;
}

fs::path working_folder() {
    std::error_code error;
    const fs::path path = fs::current_path(error);
    return error ? fs::path("(unknown: " + error.message() + ")") : path;
}

fs::path executable() {
    const auto path = link_target("/proc/self/exe");
    check(path.has_value(), "/proc/self/exe is a link");
    return *path;
}

std::optional<fs::path> real_path(const fs::path& path) {
    if (!files::exists(path)) return std::nullopt;
    std::error_code error;
    fs::path real = fs::canonical(path, error);
    if (error) return std::nullopt;  // an open pipe, by its name in /dev/fd
    return real;
}

bool same(const fs::path& a, const fs::path& b) {
    std::error_code error;
    return fs::equivalent(a, b, error) && !error;
}

std::optional<uint64_t> free_bytes(const fs::path& folder) {
    std::error_code error;
    const fs::space_info space = fs::space(folder, error);
    if (error) return std::nullopt;
    return space.available;
}

}  // namespace speedrun::files
