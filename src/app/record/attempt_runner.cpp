#include "app/record/attempt_runner.h"

#include <fmt/core.h>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "record/live/run_dir.h"
#include "record/live/status_file.h"
#include "record/log/run_log.h"
#include "util/atomic_file.h"
#include "util/child_process.h"
#include "util/error.h"
#include "util/exit_codes.h"
#include "util/files.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;
std::vector<std::string> words_of(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> words;
    for (std::string word; in >> word;) words.push_back(word);
    return words;
}

fs::path run_dir_of(const AttemptRun& run, const AttemptFolders& folders) {
    return folders.runs / fmt::format("{}_{:02}", run.baseline ? "baseline" : "run", run.index);
}

std::vector<std::string> command_of(const Attempt& attempt, const AttemptRun& run,
                                    const AttemptFolders& folders) {
    std::vector<std::string> command = words_of(attempt.plan.launch);
    for (const std::string& word :
         {files::executable().string(), std::string("train"), std::string("--config"),
          folders.config(run.baseline).string(), std::string("--run-dir"), run_dir_of(run, folders).string(),
          std::string("--set"), "runtime.seed=" + std::to_string(run.seed)})
        command.push_back(word);
    // Only what an earlier start of this very run left behind.
    if (run.starts > 1) command.emplace_back("--overwrite");
    return command;
}

// Copies a log, so that it appears whole or not at all.
void collect_log(const fs::path& from, const fs::path& to) {
    constexpr uint64_t most_bytes = uint64_t{1} << 32;
    files::make_folders(to.parent_path());
    write_atomically(to, files::read(from, most_bytes));
}

// What the log of an ended run says. Whether it has taken a step.
bool read_result(const fs::path& log, AttemptRun& run) {
    if (!files::exists(log)) return false;
    const RunLog read = read_run_log(log);
    if (read.runs.size() != 1 || read.runs.front().final_step == 0) return false;
    const Run& found = read.runs.front();
    if (found.complete()) {
        run.val_loss = found.last_validation->loss;
        run.train_time_ms = found.last_validation->train_time_ms;
    }
    return true;
}

// A run that diverged has an outcome, which counts. One that ended for a reason outside of it, such as a full
// disk, has none: it is made again.
void end_run(AttemptRun& run, const ChildEnd& end, const AttemptFolders& folders) {
    const fs::path dir = run_dir_of(run, folders);
    run.exit_code = end.exit_code;
    const bool stepped = read_result(dir / run_files::log, run);
    const bool complete = end.exit_code == 0 && stepped && run.val_loss == run.val_loss;
    const bool diverged = end.exit_code != 0 && read_state(dir / run_files::status) == "diverged";
    if (!complete && !diverged)
        throw UserError("the run with seed " + std::to_string(run.seed) + " ended with exit code " +
                        std::to_string(end.exit_code) + (stepped ? "" : " before its first step") +
                        "; the same command continues the attempt with this run");
    run.state = complete ? AttemptRun::State::done : AttemptRun::State::failed;
    collect_log(dir / run_files::log, folders.record / run.log);
}

// Before its first start a run has no directory: what is there is somebody else's.
void require_no_directory(const AttemptRun& run, const AttemptFolders& folders) {
    const fs::path dir = run_dir_of(run, folders);
    if (run.starts == 0 && files::exists(dir))
        throw UserError(dir.string() +
                        ": is there already, though this attempt has not begun the run; give another "
                        "--runs-dir, or remove it");
}

void announce(const Attempt& attempt, const AttemptRun& run, bool quiet) {
    std::fprintf(quiet ? stderr : stdout, "== %s %lld of %lld, seed %llu\n",
                 run.baseline ? "baseline" : "run", static_cast<long long>(run.index + 1),
                 static_cast<long long>(attempt.plan.runs), static_cast<unsigned long long>(run.seed));
    std::fflush(nullptr);
}

// Whether it was interrupted.
bool make_run(Attempt& attempt, AttemptRun& run, const AttemptFolders& folders,
              const AttemptOptions& options) {
    require_no_directory(run, folders);
    run.state = AttemptRun::State::started;
    ++run.starts;
    write_attempt(attempt, folders.summary());
    announce(attempt, run, options.quiet);
    const ChildEnd end = run_child(command_of(attempt, run, folders),
                                   options.quiet ? ChildOutput::to_stderr : ChildOutput::shared);
    if (end.interrupted || end.exit_code == kInterrupted) return true;
    end_run(run, end, folders);
    if (!options.keep_weights) files::remove(run_dir_of(run, folders) / run_files::weights);
    write_attempt(attempt, folders.summary());
    return false;
}

}  // namespace

AttemptEnd run_attempt(Attempt& attempt, const AttemptFolders& folders, const AttemptOptions& options) {
    files::make_folders(folders.runs);
    std::string stopped;
    for (AttemptRun& run : attempt.runs) {
        const AttemptPlan& plan = attempt.plan;
        const auto reason =
            reason_to_stop(plan.stop_rule, losses_so_far(attempt, false), plan.target, plan.runs);
        stopped = reason.value_or(repeated_runs(read_attempt_logs(attempt, folders.record)));
        if (!stopped.empty()) break;
        if (run.state == AttemptRun::State::done || run.state == AttemptRun::State::failed) continue;
        if (make_run(attempt, run, folders, options)) return AttemptEnd::interrupted;
    }
    attempt.result = judge_attempt(attempt, read_attempt_logs(attempt, folders.record), stopped);
    write_attempt(attempt, folders.summary());
    return AttemptEnd::complete;
}

}  // namespace speedrun
