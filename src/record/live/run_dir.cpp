#include "record/live/run_dir.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "util/error.h"
#include "util/files.h"
#include "util/line_file.h"
#include "util/positioned_file.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

constexpr std::array kOutputs{run_files::config,  run_files::log,    run_files::metrics,    run_files::curve,
                              run_files::weights, run_files::status, run_files::checkpoints};
constexpr const char* kProbe = ".probe-";

std::string mebibytes(uint64_t bytes) {
    return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

// Those of `path` and its parents that are not there yet, the last first.
std::vector<fs::path> missing_folders(const fs::path& path) {
    std::vector<fs::path> missing;
    for (fs::path at = path; !at.empty() && !files::exists(at); at = at.parent_path()) {
        if (at.has_filename()) missing.push_back(at);
        if (at == at.parent_path()) break;
    }
    return missing;
}

void require_directory(const fs::path& path) {
    try {
        files::make_folders(path);
    } catch (const UserError& error) {
        throw UserError("run directory " + std::string(error.what()));
    }
}

void require_no_run(const fs::path& path) {
    for (const char* output : kOutputs)
        if (files::exists(path / output))
            throw UserError("run directory " + path.string() + " already holds a run (" + output +
                            "); give another one, or --overwrite to replace that run");
}

// Permissions alone do not say whether a file can be written (root, read-only mounts, full disks): try.
void require_writable(const fs::path& path) {
    const fs::path probe = path / (kProbe + std::to_string(::getpid()));
    try {
        LineFile(probe).line(std::string(4095, '.'));
    } catch (const UserError& error) {
        files::try_remove(probe);
        throw UserError("run directory " + path.string() + " cannot be written: " + error.what());
    }
    files::remove(probe);
}

void require_space(const fs::path& path, int64_t bytes) {
    const auto free = files::free_bytes(path);
    if (!free || *free >= static_cast<uint64_t>(bytes)) return;
    throw UserError("run directory " + path.string() + ": the run will write " +
                    mebibytes(static_cast<uint64_t>(bytes)) + ", but only " + mebibytes(*free) +
                    " are free there");
}

// A folder in the place of a file is no output of a run.
void require_removable(const fs::path& path) {
    for (const char* output : kOutputs)
        if (output != std::string_view(run_files::checkpoints) && files::is_folder(path / output))
            throw UserError((path / output).string() + ": cannot be removed: it is a folder");
}

// Of an output that was being written (".weights.safetensors.tmp-4711-12"), or of a look at the directory.
bool is_unfinished(const std::string& name) {
    return name.starts_with(kProbe) || name.starts_with(run_files::seen_by_all) ||
           std::ranges::any_of(kOutputs, [&](const char* output) {
               return name.starts_with("." + std::string(output) + ".tmp");
           });
}

}  // namespace

RunDir::RunDir(const fs::path& path, const Options& options, std::vector<fs::path> made)
    : lock_(path), options_(options), made_(std::move(made)) {}

RunDir::~RunDir() {
    for (const fs::path& folder : made_) files::try_remove(folder);
}

RunDir RunDir::claim(const fs::path& path, const Options& options) {
    auto made = missing_folders(path);
    require_directory(path);
    RunDir run(path, options, std::move(made));
    if (options.former == Former::none) require_no_run(path);
    if (options.former == Former::replace) require_removable(path);
    require_writable(path);
    require_space(path, options.expected_bytes);
    return run;
}

void RunDir::begin() {
    folder().require_in_place();
    made_.clear();
    for (const fs::path& entry : files::list(path()))
        if (is_unfinished(entry.filename().string())) files::remove(entry);
    if (options_.former == Former::replace)
        for (const char* output : kOutputs) files::remove_all(path() / output);
    sync_folder(path().has_parent_path() ? path().parent_path() : ".");
}

std::string RunDir::name() const {
    const fs::path whole = files::real_path(path()).value_or(path());
    return whole.filename().string();
}

}  // namespace speedrun
