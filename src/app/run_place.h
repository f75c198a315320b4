#pragma once
// The directory of a run: whether it may be used, what happens to what is there, and that all ranks see it.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/placement.h"
#include "config/config.h"
#include "record/live/run_dir.h"
#include "train/checkpoint/find.h"

namespace speedrun {

// Whether `checkpoint` lies among the checkpoints of the run in `run_dir`, whose log can then go on.
bool belongs_to(const Checkpoint& checkpoint, const std::filesystem::path& run_dir);

// Whether the run in the directory is finished and computed what this config does: then `--resume auto` has
// nothing to do. Where its last steps or its weights are gone and `checkpoint` is left of it, they are made
// again.
bool is_finished(const std::filesystem::path& run_dir, const Config& config,
                 const std::optional<Checkpoint>& checkpoint);

// What becomes of a run that is in the directory. With `automatic` one that was cut before its first
// checkpoint begins anew, which is noted. UserError where `overwrite` would remove the checkpoint that is
// resumed.
struct PlaceWishes {
    bool automatic = false;  // --resume auto
    bool overwrite = false;
};
RunDir::Former former_run(const std::filesystem::path& run_dir, const std::optional<Checkpoint>& checkpoint,
                          const PlaceWishes& wishes, std::vector<std::string>& notes);

// Every rank writes a part of each checkpoint: UserError unless all see what rank 0, which holds the
// directory, writes there. `held`: on rank 0. All ranks call it.
void require_common_folder(const std::filesystem::path& run_dir, const RunDir* held,
                           const std::vector<RankPlacement>& placements, Communicator& communicator);

}  // namespace speedrun
