#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "config/config.h"
#include "record/race/race.h"

namespace speedrun {

struct RaceSetup {
    std::string config;                  // file that all runs share
    std::vector<std::string> overrides;  // --set, of all runs
    std::filesystem::path folder;        // race.json, and a run directory for each run

    std::filesystem::path race_file() const { return folder / "race.json"; }
    // With the matrices' rule: as published, the config's own as the config says.
    Config config_of(const std::string& rule) const;
};

// Makes the runs that are still to be made, one process each, and times each rule's update alone; race.json
// is kept up to date. False where it was interrupted: a run that had begun goes on from its checkpoint the
// next time. A run whose loss becomes NaN or infinite is one that diverged; UserError where a run ends for
// any other reason.
bool run_race(Race& race, const RaceSetup& setup);

}  // namespace speedrun
