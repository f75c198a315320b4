#pragma once
#include <filesystem>

#include "record/attempt/attempt.h"

namespace speedrun {

struct AttemptFolders {
    std::filesystem::path record;  // config, logs, summary.json, README.md
    std::filesystem::path runs;    // run directories
    std::filesystem::path summary() const { return record / "summary.json"; }
    // The resolved config of a side, which its runs read: later edits of what was named change nothing.
    std::filesystem::path config(bool baseline) const {
        return record / (baseline ? "baseline_config.json" : "config.json");
    }
};

struct AttemptOptions {
    bool keep_weights = false;
    bool quiet = false;  // stdout is for the result alone
};

enum class AttemptEnd { complete, interrupted };

// Makes the runs that are still to be made, one process each, and keeps summary.json up to date. A run that
// was interrupted starts again from its beginning. A run that diverges (status.json says so) counts, and
// fails the attempt. UserError where a run ends for any other reason; the attempt can then be continued too.
AttemptEnd run_attempt(Attempt& attempt, const AttemptFolders& folders, const AttemptOptions& options);

}  // namespace speedrun
