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

#include "train/checkpoint/find.h"
#include "util/atomic_file.h"
#include "util/error.h"
#include "util/positioned_file.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, const std::string& doing, const std::string& reason) {
    throw UserError(path.string() + ": " + doing + ": " + reason);
}

// Removes a folder that others might be looking at: first its name, then what is in it.
void remove_folder(const fs::path& folder) {
    const fs::path trash = folder.parent_path() / (".trash_" + folder.filename().string());
    std::error_code error;
    fs::remove_all(trash, error);
    fs::rename(folder, trash, error);
    if (!error) fs::remove_all(trash, error);
    if (error) fail(folder, "cannot be removed", error.message());
}

// `from` takes the name `to`. What had it, an older checkpoint of the same step, keeps it until that moment.
void rename_over(const fs::path& from, const fs::path& to) {
    std::error_code error;
    if (!fs::exists(to, error)) {
        fs::rename(from, to, error);
        if (error) fail(to, "cannot be renamed into place", error.message());
        return;
    }
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

CheckpointWriter::CheckpointWriter(Options options) : options_(std::move(options)) {
    if (options_.rank != 0 || !fs::is_directory(options_.folder)) return;
    for (const auto& entry : fs::directory_iterator(options_.folder)) {
        const std::string name = entry.path().filename().string();
        std::error_code ignored;
        if (name.starts_with(".step_") || name.starts_with(".trash_")) fs::remove_all(entry.path(), ignored);
    }
}

CheckpointWriter::~CheckpointWriter() {
    wait();
}

fs::path CheckpointWriter::path_of(int64_t step) const {
    std::string digits = std::to_string(step);
    digits.insert(0, digits.size() < 8 ? 8 - digits.size() : 0, '0');
    return options_.folder / ("step_" + digits);
}

fs::path CheckpointWriter::temporary() const {
    return options_.folder / ("." + path_of(manifest_.step).filename().string() + "." + options_.token);
}

void CheckpointWriter::begin(const CheckpointLayout& layout, CheckpointManifest manifest) {
    check(!busy(), "one checkpoint at a time");
    layout_ = layout;
    manifest_ = std::move(manifest);
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
    fs::create_directories(temporary());
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

void CheckpointWriter::commit(int64_t ranks) {
    check(options_.rank == 0 && !busy(), "rank 0 commits when its part is written");
    manifest_.files.clear();
    for (size_t i = 0; i < layout_.files.size(); ++i)
        if (layout_.files[i].name != gradients_file(0)) manifest_.files[layout_.files[i].name] = {};
    manifest_.files["config.json"] = {};
    for (int64_t rank = 0; manifest_.pending_gradients && rank < ranks; ++rank)
        manifest_.files[gradients_file(rank)] = {};
    run(&CheckpointWriter::publish);
}

void CheckpointWriter::publish() {
    const fs::path folder = temporary();
    write_atomically(folder / "config.json", options_.config_json);
    for (auto& [name, file] : manifest_.files) file = measure_file(folder / name, /*from_disk=*/true);
    write_atomically(folder / "checkpoint.json", to_json(manifest_));
    sync_folder(folder);
    rename_over(folder, path_of(manifest_.step));
    sync_folder(options_.folder);
    prune();
}

void CheckpointWriter::discard() {
    std::error_code ignored;
    fs::remove_all(temporary(), ignored);
}

// The last ones stay, and the one with the lowest validation loss.
void CheckpointWriter::prune() const {
    std::vector<fs::path> all = checkpoint_folders(options_.folder);  // newest first
    fs::path best;
    double lowest = 0;
    for (const fs::path& folder : all) {
        const auto manifest = try_read_manifest(folder);
        if (!manifest || !manifest->val_loss || (!best.empty() && *manifest->val_loss >= lowest)) continue;
        best = folder;
        lowest = *manifest->val_loss;
    }
    for (size_t i = static_cast<size_t>(options_.keep_last); i < all.size(); ++i)
        if (!options_.keep_best || all[i] != best) remove_folder(all[i]);
}

}  // namespace speedrun
