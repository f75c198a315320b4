#include "record/log/run_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "record/log/run_log_parser.h"
#include "util/error.h"

namespace speedrun {
namespace {

constexpr size_t kPieceBytes = 32 * 1024;

// A file, or a pipe: one that nobody writes to is not waited for. A device may have no end.
class Descriptor {
  public:
    explicit Descriptor(const std::filesystem::path& path)
        : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
        struct stat status {};
        if (fd_ < 0 || ::fstat(fd_, &status) != 0) return;
        if (S_ISFIFO(status.st_mode)) ::fcntl(fd_, F_SETFL, 0);  // from now on reads wait for what is written
        other_ = !S_ISREG(status.st_mode) && !S_ISFIFO(status.st_mode) && !S_ISDIR(status.st_mode);
    }
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return fd_; }
    bool is_other() const { return other_; }

  private:
    int fd_;
    bool other_ = false;
};

[[noreturn]] void fail(const std::filesystem::path& path) {
    throw UserError(path.string() + ": cannot read: " + std::strerror(errno));
}

std::string of_scheduled(const Run& run) {
    return run.scheduled_steps ? " of " + std::to_string(*run.scheduled_steps) : "";
}

}  // namespace

std::string RunHardware::text() const {
    if (gpus > 0) return std::to_string(gpus) + " x " + device;
    return cores > 0 ? device + ", " + std::to_string(cores) + " cores" : device;
}

std::string RunHeader::field(const std::string& name) const {
    for (const auto& [key, value] : fields)
        if (key == name) return value;
    return "";
}

bool Run::complete() const {
    return incomplete_reason().empty();
}

std::string Run::incomplete_reason() const {
    if (repeats_another && !ends_validated) return "repeats lines of a run above it";
    if (scheduled_steps && final_step < *scheduled_steps)
        return "stopped after step " + std::to_string(final_step) + of_scheduled(*this);
    if (scheduled_steps && final_step > *scheduled_steps)
        return "has step " + std::to_string(final_step) + of_scheduled(*this);
    if (!last_validation) return "has no validation";
    if (!ends_validated || final_step == 0)
        return "ends without a validation after step " + std::to_string(final_step) + of_scheduled(*this);
    return "";
}

RunLog read_run_log(const std::filesystem::path& path, const ParseOptions& options) {
    const Descriptor file(path);
    if (file.get() < 0) fail(path);
    if (file.is_other()) throw UserError(path.string() + ": neither a file nor a pipe");
    RunLogParser parser(options);
    const auto piece = std::make_unique_for_overwrite<char[]>(kPieceBytes);
    for (;;) {
        const ssize_t got = ::read(file.get(), piece.get(), kPieceBytes);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(path);
        if (got == 0) break;
        parser.feed({piece.get(), static_cast<size_t>(got)});
    }
    RunLog log = parser.finish();
    log.path = path;
    return log;
}

}  // namespace speedrun
