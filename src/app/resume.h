#pragma once
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"
#include "train/checkpoint/find.h"

namespace speedrun {

// The checkpoint that `--resume WHERE` means: WHERE is a checkpoint, a run's directory, or "auto", which is
// `run_dir`. Every byte of it has been checked; newer ones that were damaged are named in `notes`. Nothing
// where "auto" finds none at all; UserError where there are only damaged ones, or where WHERE has none.
std::optional<Checkpoint> choose_checkpoint(const std::string& where, const std::filesystem::path& run_dir,
                                            std::vector<std::string>& notes);

// The differences between the config a checkpoint was written under and `now`, as config_diff has them.
// UserError where one of them cannot be resumed over (the model, which rule updates what), or where there are
// any that change results and `accepted` is false.
std::vector<std::string> config_changes(const Checkpoint& checkpoint, const Config& now, bool accepted);

// Whether runs of both configs compute the same: they differ in where and how they run, or in nothing.
bool compute_the_same(const Config& a, const Config& b);

// The differences between the shards that the run of a checkpoint read and those that this one would, a line
// each; files that have another name only are the same. UserError where there are any and `accepted` is
// false.
std::vector<std::string> data_changes(const Checkpoint& checkpoint, std::span<const ShardIdentity> train,
                                      std::span<const ShardIdentity> val, bool accepted);

// What is to be noted where other numbers of ranks or threads than wrote a checkpoint go on from it; "" else.
std::string parallel_change(const CheckpointManifest& then, int64_t ranks, int64_t threads);

}  // namespace speedrun
