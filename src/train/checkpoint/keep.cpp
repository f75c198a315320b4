#include "train/checkpoint/keep.h"

#include <algorithm>
#include <optional>

#include "train/checkpoint/find.h"
#include "util/files.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// "abandoned_step_00000040", or with a number behind it where that is taken.
fs::path free_name(const fs::path& checkpoint) {
    const std::string name = "abandoned_" + checkpoint.filename().string();
    fs::path free = checkpoint.parent_path() / name;
    for (int i = 2; files::exists(free); ++i)
        free = checkpoint.parent_path() / (name + "." + std::to_string(i));
    return free;
}

}  // namespace

void remove_folder(const fs::path& folder) {
    const fs::path trash = folder.parent_path() / (".trash_" + folder.filename().string());
    files::remove_all(trash);
    files::rename(folder, trash);
    files::remove_all(trash);
}

void prune_checkpoints(const fs::path& folder, const KeepRule& rule, int64_t step) {
    std::vector<Checkpoint> own;  // newest first
    for (const fs::path& candidate : checkpoint_folders(folder))
        if (auto manifest = try_read_manifest(candidate); manifest && manifest->step <= step)
            own.push_back({candidate, *std::move(manifest)});
    std::optional<double> lowest;
    fs::path best;
    for (const Checkpoint& checkpoint : own) {
        const auto& loss = checkpoint.manifest.val_loss;
        if (!loss || (lowest && *loss >= *lowest)) continue;
        lowest = loss;
        best = checkpoint.folder;
    }
    for (size_t i = static_cast<size_t>(rule.last); i < own.size(); ++i)
        if (!rule.best || own[i].folder != best) remove_folder(own[i].folder);
}

std::vector<std::string> set_aside_later(const fs::path& folder, int64_t step) {
    std::vector<std::string> lines;
    for (const fs::path& candidate : checkpoint_folders(folder)) {
        const auto manifest = try_read_manifest(candidate);
        if (!manifest || manifest->step <= step) continue;
        const fs::path aside = free_name(candidate);
        files::rename(candidate, aside);
        lines.push_back(candidate.string() + " is of the branch that is left: renamed " +
                        aside.filename().string());
    }
    return lines;
}

}  // namespace speedrun
