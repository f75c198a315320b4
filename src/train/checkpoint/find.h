#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "train/checkpoint/manifest.h"

namespace speedrun {

struct Checkpoint {
    std::filesystem::path folder;
    CheckpointManifest manifest;
};

// "step_00001960", and the step that a folder of such a name is of; none for any other name.
std::string checkpoint_name(int64_t step);
std::optional<int64_t> step_of_name(const std::filesystem::path& folder);

// Folders in a run's folder of checkpoints that have a checkpoint's name, the newest first. Damaged ones are
// among them.
std::vector<std::filesystem::path> checkpoint_folders(const std::filesystem::path& folder);

// Size and hash of a regular file's bytes. from_disk: past the page cache, where the file system allows it:
// what the disk has, and memory is left alone. UserError if it cannot be read, and before anything is read if
// it has not the `expected` size.
CheckpointManifest::File measure_file(const std::filesystem::path& path, bool from_disk = false,
                                      std::optional<uint64_t> expected = std::nullopt);

// Nothing where there is no manifest that can be believed, or one of another step than the folder's name
// says.
std::optional<CheckpointManifest> try_read_manifest(const std::filesystem::path& folder);

// Reads the manifest and every byte of the files it names. UserError where something is missing or damaged.
Checkpoint open_checkpoint(const std::filesystem::path& folder);

// The newest whole checkpoint in a run's folder of checkpoints; what is wrong with newer ones goes to
// `passed_over`, a line each.
std::optional<Checkpoint> find_checkpoint(const std::filesystem::path& folder,
                                          std::vector<std::string>& passed_over);

}  // namespace speedrun
