#include "train/checkpoint/writer.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "record/live/run_dir.h"
#include "train/checkpoint/find.h"
#include "util/atomic_file.h"
#include "util/error.h"
#include "util/files.h"
#include "util/positioned_file.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, const std::string& doing, const std::string& reason) {
    throw UserError(path.string() + ": " + doing + ": " + reason);
}

// `from` takes the name `to`. What had it, an older checkpoint of the same step, keeps it until that moment.
void rename_over(const fs::path& from, const fs::path& to) {
    if (!files::exists(to)) return files::rename(from, to);
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0)
        fail(to, "cannot be replaced", std::strerror(errno));
    remove_folder(from);
}

// The calling thread takes what those that compute leave of the cores. Where the system refuses, it shares
// them as before.
void step_back() {
    constexpr int niceness = 19;  // the last; the run waits for the writer where the next checkpoint is due
    (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), niceness);
}

}  // namespace

CheckpointWriter::CheckpointWriter(Options options)
    : options_(std::move(options)), run_dir_(options_.folder.parent_path()) {}

CheckpointWriter::~CheckpointWriter() {
    wait();
}

fs::path CheckpointWriter::path_of(int64_t step) const {
    return options_.folder / checkpoint_name(step);
}

fs::path CheckpointWriter::temporary() const {
    return options_.folder / ("." + checkpoint_name(manifest_.step) + "." + options_.token);
}

// An empty file that says that this rank's part is on disk.
fs::path CheckpointWriter::part(int64_t rank) const {
    return temporary() / ("part_" + std::to_string(rank));
}

void CheckpointWriter::remove_unfinished() const {
    for (const fs::path& entry : files::list_if_there(options_.folder)) {
        const std::string name = entry.filename().string();
        const bool unfinished = name.starts_with(".step_") || name.starts_with(".trash_");
        // Other ranks may have begun to write what has the token.
        if (unfinished && !name.ends_with("." + options_.token)) files::try_remove_all(entry);
    }
}

void CheckpointWriter::begin(const CheckpointLayout& layout, CheckpointManifest manifest) {
    check(!busy(), "one checkpoint at a time");
    layout_ = layout;
    manifest_ = std::move(manifest);
    if (options_.rank == 0 && !std::exchange(tidied_, true)) remove_unfinished();
    take_snapshot();
    run(&CheckpointWriter::write_part);
}

void CheckpointWriter::take_snapshot() {
    constexpr size_t block = PositionedFile::block;
    snapshot_.resize(static_cast<size_t>(layout_.extent_bytes()) + block * layout_.extents.size());
    copies_.clear();
    std::byte* to = snapshot_.data();
    for (const CheckpointExtent& extent : layout_.extents) {
        to += (extent.offset - reinterpret_cast<uintptr_t>(to)) % block;
        at::from_blob(to, extent.tensor.sizes(), extent.tensor.scalar_type()).copy_(extent.tensor);
        copies_.emplace_back(to, extent.tensor.nbytes());
        to += extent.tensor.nbytes();
    }
}

void CheckpointWriter::run(void (CheckpointWriter::*work)()) {
    error_.clear();
    // Without the low priority this thread takes a core from one of those that compute, and the others wait
    // for it at the end of each loop.
    work_ = std::async(std::launch::async, [this, work] {
        step_back();
        (this->*work)();
    });
}

bool CheckpointWriter::busy() const {
    return work_.valid() && work_.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
}

void CheckpointWriter::wait() {
    if (work_.valid()) work_.wait();
}

std::string CheckpointWriter::error() {
    check(!busy(), "the outcome is known when the work is done");
    if (work_.valid()) {
        try {
            work_.get();
        } catch (const std::exception& error) {
            error_ = error.what();
        }
    }
    return error_;
}

void CheckpointWriter::write_part() {
    run_dir_.require_in_place();
    files::make_folders(temporary());
    {
        std::vector<PositionedFile> files;
        for (size_t i = 0; i < layout_.files.size(); ++i) {
            const auto& [name, layout] = layout_.files[i];
            files.emplace_back(temporary() / name, layout.file_bytes());
            if (options_.rank == 0 || name == gradients_file(options_.rank))
                files.back().write(std::as_bytes(std::span(layout.head())), 0);
        }
        for (size_t i = 0; i < copies_.size(); ++i)
            files[layout_.extents[i].file].write(copies_[i], layout_.extents[i].offset);
        for (PositionedFile& file : files) file.sync();
    }
    PositionedFile(part(options_.rank), 0).sync();
}

void CheckpointWriter::commit(int64_t ranks) {
    check(options_.rank == 0 && !busy(), "rank 0 commits when its part is written");
    ranks_ = ranks;
    manifest_.files.clear();
    for (size_t i = 0; i < layout_.files.size(); ++i)
        if (layout_.files[i].name != gradients_file(0)) manifest_.files[layout_.files[i].name] = {};
    manifest_.files["config.json"] = {};
    for (int64_t rank = 0; manifest_.pending_gradients && rank < ranks; ++rank)
        manifest_.files[gradients_file(rank)] = {};
    run(&CheckpointWriter::publish);
}

// Where a rank does not write to the same folder, what it should have written is zeros here.
void CheckpointWriter::require_parts() const {
    for (int64_t rank = 0; rank < ranks_; ++rank)
        if (!files::exists(part(rank)))
            fail(temporary(), "has no part of rank " + std::to_string(rank),
                 "that rank writes to another folder of this name");
    for (int64_t rank = 0; rank < ranks_; ++rank) files::remove(part(rank));
}

void CheckpointWriter::sync_logs() const {
    for (const char* name : {run_files::log, run_files::metrics})
        if (const fs::path path = options_.folder.parent_path() / name; files::is_file(path)) sync_file(path);
    sync_folder(options_.folder.parent_path());
}

void CheckpointWriter::publish() {
    const fs::path folder = temporary();
    run_dir_.require_in_place();
    require_parts();
    sync_logs();
    write_atomically(folder / "config.json", options_.config_json);
    for (auto& [name, file] : manifest_.files) file = measure_file(folder / name, /*from_disk=*/true);
    write_atomically(folder / "checkpoint.json", to_json(manifest_));
    sync_folder(folder);
    rename_over(folder, path_of(manifest_.step));
    sync_folder(options_.folder);
    prune_checkpoints(options_.folder, options_.keep, manifest_.step);
}

void CheckpointWriter::discard() {
    files::try_remove_all(temporary());
}

}  // namespace speedrun
