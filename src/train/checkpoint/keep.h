#pragma once
// Which checkpoints of a run stay in its folder of checkpoints. What else lies there is nobody's to touch:
// names that are no checkpoint's, and folders whose manifest does not say the step that their name does.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace speedrun {

struct KeepRule {
    int64_t last = 2;
    bool best = true;  // the one with the lowest validation loss
};

// Removes those up to `step`, the run's own, that the rule does not keep.
void prune_checkpoints(const std::filesystem::path& folder, const KeepRule& rule, int64_t step);

// A run goes on after `step`: what it had saved after later steps is of a branch that is left. Renames those
// to "abandoned_step_...", so that neither pruning nor the next resume counts them. Returns a line for each.
std::vector<std::string> set_aside_later(const std::filesystem::path& folder, int64_t step);

// Removes a folder that others might be looking at: first its name, then what is in it.
void remove_folder(const std::filesystem::path& folder);

}  // namespace speedrun
