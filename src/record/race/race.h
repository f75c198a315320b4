#pragma once
// A race between the rules of an optimizer: which runs it takes, and what they came to.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "record/judge/statistics.h"
#include "record/log/run_log.h"

namespace speedrun {

// Learning rates lie on one ladder, two rungs to a factor of ten: rung 0 is 1, rung -1 is 0.3, rung -2 is
// 0.1, rung -3 is 0.03.
double ladder_lr(int rung);
// The rung nearest to a learning rate > 0, by ratio.
int nearest_rung(double lr);

// What is stated before the first run.
struct RacePlan {
    struct Racer {
        std::string rule;
        int first_rung = 0;  // nearest to the rule's published learning rate
        bool operator==(const Racer&) const = default;
    };
    std::vector<Racer> racers;
    std::vector<uint64_t> seeds;  // the first one sweeps learning rates; the best goes on with the others
    int neighbours = 1;           // rungs tried on each side of the first; 0: no sweep
    int more = 3;                 // rungs tried beyond them at most, while the best is the outermost one
    int64_t steps = 0;
    std::string config_hash;  // of the config all runs share, resolved
    bool operator==(const RacePlan&) const = default;
};

struct RaceRun {
    std::string rule;
    int rung = 0;
    uint64_t seed = 0;
    std::vector<Validation> validations;  // none where the run diverged: its loss became NaN or infinite
    bool diverged = false;

    // Of the last validation; infinite for a run that diverged.
    double final_loss() const;
};

// An optimizer's update alone, on the race's model.
struct RuleCosts {
    double step_ms = 0;
    int64_t state_bytes = 0;
};

struct Race {
    RacePlan plan;
    std::vector<RaceRun> runs;
    std::map<std::string, RuleCosts> costs;  // by rule
};

// A run that is yet to be made.
struct RaceEntry {
    std::string rule;
    int rung = 0;
    uint64_t seed = 0;
    bool operator==(const RaceEntry&) const = default;
};
// First all sweeps, one rule after another, then the other seeds in turns; none when the race is over.
std::optional<RaceEntry> next_run(const Race& race);

// The rung of the lowest final loss with the first seed; the lower one of two equal ones. None before the
// first run of the rule.
std::optional<int> best_rung(const Race& race, const std::string& rule);

// The file race.json. read_race: UserError (path, what is wrong) where it is none.
void write_race(const Race& race, const std::filesystem::path& path);
Race read_race(const std::filesystem::path& path);

}  // namespace speedrun
