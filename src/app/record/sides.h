#pragma once
#include <filesystem>
#include <vector>

#include "record/judge/groups.h"

namespace speedrun {

// The groups of a folder's runs, pooled over the folders in it, that hold a run, each with `path` for its
// own. What was left out, and why, is told as warnings. UserError where a part could not be read.
std::vector<RunGroup> groups_of(const std::filesystem::path& path, bool counts_steps);

// The only group of one side of a comparison; UserError where there is none, or where there are several.
RunGroup side_of(const std::filesystem::path& path, bool counts_steps);

}  // namespace speedrun
