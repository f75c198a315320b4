#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "record/judge/check_report.h"
#include "record/judge/comparison.h"
#include "record/judge/stop_rule.h"

namespace speedrun {

// What is run again and again.
struct AttemptSide {
    std::string config;                  // file that was named
    std::vector<std::string> overrides;  // --set
    std::string config_hash;             // sha-256 of the resolved config with the first seed
    bool operator==(const AttemptSide&) const = default;
};

// What is stated before the first run. It cannot change after.
struct AttemptPlan {
    std::string name, date;  // date: "2026-07-17"
    AttemptSide attempt;
    std::optional<AttemptSide> baseline;
    int64_t runs = 0;
    uint64_t first_seed = 0;  // run i, counted from 0, has this seed + i, on both sides
    double target = 0;
    StopRule stop_rule;
    std::string launch;  // what train is started with, "mpirun -n 8"
    std::string commit;  // of the program
    bool operator==(const AttemptPlan&) const = default;
};

// One run of an attempt, in the order in which they are made.
struct AttemptRun {
    enum class State { waiting, started, done, failed } state = State::waiting;
    bool baseline = false;
    int64_t index = 0;
    uint64_t seed = 0;
    int64_t starts = 0;  // more than one where it was interrupted
    std::string log;     // relative to the attempt's folder
    int64_t exit_code = 0;
    double val_loss = kNotLogged, train_time_ms = kNotLogged;
};

// What came of it.
struct AttemptResult {
    bool below_target = false, record = false;  // as in Verdict
    double significance = 0;
    std::string reason;                 // of the verdict
    std::string stopped;                // why before the last run; "" where it was not
    nlohmann::ordered_json groups;      // check_json() of the attempt's runs
    nlohmann::ordered_json comparison;  // comparison_json(), or null
};

// The file summary.json of an attempt's folder.
struct Attempt {
    AttemptPlan plan;
    std::vector<AttemptRun> runs;
    std::optional<AttemptResult> result;
};

// All runs waiting: baseline and attempt in turns.
Attempt make_attempt(const AttemptPlan& plan);

nlohmann::ordered_json attempt_json(const Attempt& attempt);
// UserError (path, what is wrong) where the file is no summary of an attempt.
Attempt read_attempt(const std::filesystem::path& summary);
void write_attempt(const Attempt& attempt, const std::filesystem::path& summary);

// UserError naming what differs where `wanted` is not what was stated; name and date are not compared.
void require_same_plan(const AttemptPlan& stated, const AttemptPlan& wanted);

// Final losses of one side's runs so far; NaN for a failed one.
std::vector<double> losses_so_far(const Attempt& attempt, bool baseline);

// The groups of the attempt's own runs and, where there is a baseline, of its; from the logs in `folder`.
struct AttemptLogs {
    Collection attempt;
    std::optional<Collection> baseline;
};
AttemptLogs read_attempt_logs(const Attempt& attempt, const std::filesystem::path& folder);

// "run_01_seed_8.txt: the same run as ...": what repeats another run of its side, and is no sample; "" where
// none does.
std::string repeated_runs(const AttemptLogs& logs);

// The only group that holds complete runs; null where there are none or several.
const RunGroup* only_group(const Collection& runs);

// Judges the runs that are done, where none of them repeats another. `stopped` as in AttemptResult.
AttemptResult judge_attempt(const Attempt& attempt, const AttemptLogs& logs, const std::string& stopped);

// README.md in the track's shape: what was tried, the numbers, how it was run.
std::string attempt_readme(const Attempt& attempt, const AttemptLogs& logs, const std::string& difference);

}  // namespace speedrun
