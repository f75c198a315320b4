#include "util/mapped_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

#include "util/error.h"

namespace speedrun {
namespace {

// What the handler of SIGBUS may touch: the mapped ranges of this process. A signal's handler can be reached
// through nothing but globals, and may use nothing but lock-free atomics.
struct Range {
    std::atomic<bool> taken{false}, lost{false};
    std::atomic<uintptr_t> begin{0}, end{0};
};
constexpr size_t kRanges = 4096;
std::array<Range, kRanges> ranges;
struct sigaction handler_before {};
static_assert(std::atomic<uintptr_t>::is_always_lock_free);

// Puts zeros where the file's pages are gone, up to the end of its range. What is no page of ours is left to
// whoever had the signal before.
void on_bus_error(int, siginfo_t* info, void*) {
    const int error = errno;
    const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
    const bool of_memory = info->si_code == BUS_ADRERR;  // and not sent by a process
    for (Range& range : ranges) {
        if (!of_memory) break;
        const uintptr_t begin = range.begin, end = range.end;
        if (at < begin || at >= end) continue;
        const uintptr_t page = at - at % 4096;
        void* const zeros = ::mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        errno = error;
        range.lost = true;
        if (zeros != MAP_FAILED) return;
    }
    ::sigaction(SIGBUS, &handler_before, nullptr);
    if (info->si_code <= 0) ::raise(SIGBUS);  // what memory raised, it raises again
}

void install_handler() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action {};
        action.sa_sigaction = on_bus_error;
        action.sa_flags = SA_SIGINFO;
        sigemptyset(&action.sa_mask);
        check(::sigaction(SIGBUS, &action, &handler_before) == 0, "SIGBUS has no handler");
    });
}

size_t take_slot(std::span<const std::byte> bytes) {
    install_handler();
    for (size_t i = 0; i < kRanges; ++i) {
        bool expected = false;
        if (!ranges[i].taken.compare_exchange_strong(expected, true)) continue;
        const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
        ranges[i].lost = false;
        ranges[i].begin = begin;
        ranges[i].end = begin + bytes.size();
        return i;
    }
    throw UserError("more than " + std::to_string(kRanges) + " files are mapped at the same time");
}

void give_back_slot(size_t slot) {
    ranges[slot].end = 0;
    ranges[slot].begin = 0;
    ranges[slot].taken = false;
}

}  // namespace

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
    // O_NONBLOCK: a pipe of that name is refused instead of waited for.
    const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) throw UserError(path_.string() + ": cannot be opened: " + std::strerror(errno));
    struct stat status {};
    const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    const auto size = static_cast<size_t>(status.st_size);
    void* const address = regular && size > 0 ? ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0) : nullptr;
    const int error = errno;
    if (!regular || address == MAP_FAILED) ::close(fd);
    if (!regular) throw UserError(path_.string() + ": is not a regular file");
    if (address == MAP_FAILED)
        throw UserError(path_.string() + ": cannot be mapped: " + std::strerror(error));
    fd_ = fd;
    bytes_ = {static_cast<const std::byte*>(address), size};
    if (size > 0) slot_ = take_slot(bytes_);
}

MappedFile::~MappedFile() {
    if (!bytes_.empty()) {
        give_back_slot(slot_);
        ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
    }
    if (fd_ >= 0) ::close(fd_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      slot_(other.slot_),
      bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(fd_, other.fd_);
    std::swap(slot_, other.slot_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

void MappedFile::check_unchanged() const {
    struct stat status {};
    if (::fstat(fd_, &status) != 0)
        throw UserError(path_.string() + ": its size cannot be read: " + std::strerror(errno));
    const bool lost = !bytes_.empty() && ranges[slot_].lost;
    if (static_cast<size_t>(status.st_size) == bytes_.size() && !lost) return;
    throw UserError(
        fmt::format("{}: has {} bytes now, and had {} when it was opened: it was changed while in use",
                    path_.string(), status.st_size, bytes_.size()));
}

void MappedFile::prefetch() const {
    if (!bytes_.empty()) ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_WILLNEED);
}

}  // namespace speedrun
