#include "record/live/run_dir.h"

#include <unistd.h>
#include <array>
#include <cstdlib>
#include <string>
#include <system_error>

#include "util/error.h"
#include "util/line_file.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

std::string mebibytes(uintmax_t bytes) {
    return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

void require_directory(const fs::path& path) {
    std::error_code error;
    fs::create_directories(path, error);
    if (!error && fs::is_directory(path)) return;
    const std::string reason = error ? error.message() : "there is something else of that name";
    throw UserError("run directory " + path.string() + ": cannot be created: " + reason);
}

// Permissions alone do not say whether a file can be written (root, read-only mounts, full disks): try.
void require_writable(const fs::path& path) {
    const fs::path probe = path / (".probe-" + std::to_string(::getpid()));
    try {
        LineFile(probe).line(std::string(4095, '.'));
    } catch (const UserError& error) {
        std::error_code ignored;
        fs::remove(probe, ignored);
        throw UserError("run directory " + path.string() + " cannot be written: " + error.what());
    }
    fs::remove(probe);
}

void require_space(const fs::path& path, int64_t bytes) {
    std::error_code error;
    const fs::space_info space = fs::space(path, error);
    if (error || space.available >= static_cast<uintmax_t>(bytes)) return;
    throw UserError("run directory " + path.string() + ": the run will write " + mebibytes(bytes) +
                    ", but only " + mebibytes(space.available) + " are free there");
}

void remove_output(const fs::path& output) {
    std::error_code error;
    fs::remove(output, error);
    if (error) throw UserError(output.string() + ": cannot be removed: " + error.message());
}

}  // namespace

RunDir RunDir::create(const fs::path& path, const RunDirOptions& options) {
    require_directory(path);
    RunDir run(path);
    const std::array outputs = {run.checkpoints(), run.config(),  run.log(),   run.metrics(),
                                run.curve(),       run.weights(), run.status()};
    for (const auto& output : outputs) {
        if (!options.overwrite && fs::exists(output)) {
            throw UserError("run directory " + path.string() + " already holds a run (" +
                            output.filename().string() +
                            "); give another one, or --overwrite to replace that run");
        }
    }
    require_writable(path);
    require_space(path, options.expected_bytes);
    std::error_code error;
    fs::remove_all(run.checkpoints(), error);  // a folder; what is left of it is found below
    for (const auto& output : outputs) remove_output(output);
    return run;
}

RunDir RunDir::reopen(const fs::path& path, int64_t expected_bytes) {
    if (!fs::exists(path / "config.json"))
        throw UserError("run directory " + path.string() + " holds no run that could go on");
    RunDir run(path);
    require_writable(path);
    require_space(path, expected_bytes);
    return run;
}

}  // namespace speedrun
