#include "app/record/attempt_runner.h"

#include <fmt/core.h>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "record/log/run_log.h"
#include "util/atomic_file.h"
#include "util/child_process.h"
#include "util/error.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;
using State = AttemptRun::State;

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
         {fs::read_symlink("/proc/self/exe").string(), std::string("train"), std::string("--config"),
          folders.config(run.baseline).string(), std::string("--run-dir"), run_dir_of(run, folders).string(),
          std::string("--set"), "runtime.seed=" + std::to_string(run.seed)})
        command.push_back(word);
    // Only what an earlier start of this very run left behind.
    if (run.starts > 1) command.emplace_back("--overwrite");
    return command;
}

// Copies a log, so that it appears whole or not at all.
void collect_log(const fs::path& from, const fs::path& to) {
    fs::create_directories(to.parent_path());
    std::FILE* in = std::fopen(from.c_str(), "rb");
    if (in == nullptr) throw UserError(from.string() + ": cannot be read");
    AtomicFile out(to);
    std::vector<char> buffer(size_t{1} << 16);
    while (const size_t got = std::fread(buffer.data(), 1, buffer.size(), in))
        out.write(std::string_view(buffer.data(), got));
    std::fclose(in);
    out.commit();
}

// What the log of an ended run says. Whether it has taken a step.
bool read_result(const fs::path& log, AttemptRun& run) {
    if (!fs::exists(log)) return false;
    const RunLog read = read_run_log(log);
    if (read.runs.size() != 1 || read.runs.front().final_step == 0) return false;
    const Run& found = read.runs.front();
    if (found.complete()) {
        run.val_loss = found.last_validation->loss;
        run.train_time_ms = found.last_validation->train_time_ms;
    }
    return true;
}

void end_run(AttemptRun& run, const ChildEnd& end, const AttemptFolders& folders) {
    run.exit_code = end.exit_code;
    const fs::path log = run_dir_of(run, folders) / "log.txt";
    const bool stepped = read_result(log, run);
    const bool complete = end.exit_code == 0 && stepped && run.val_loss == run.val_loss;
    if (!complete && !(end.exit_code == kUserError && stepped))
        throw UserError("the run with seed " + std::to_string(run.seed) + " ended with exit code " +
                        std::to_string(end.exit_code) + (stepped ? "" : " before its first step") +
                        "; the same command continues the attempt with this run");
    run.state = complete ? State::done : State::failed;
    collect_log(log, folders.record / run.log);
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
    run.state = State::started;
    ++run.starts;
    write_attempt(attempt, folders.summary());
    announce(attempt, run, options.quiet);
    const ChildEnd end = run_child(command_of(attempt, run, folders),
                                   options.quiet ? ChildOutput::to_stderr : ChildOutput::shared);
    if (end.interrupted || end.exit_code == kInterrupted) return true;
    end_run(run, end, folders);
    if (!options.keep_weights) fs::remove(run_dir_of(run, folders) / "weights.safetensors");
    write_attempt(attempt, folders.summary());
    return false;
}

}  // namespace

AttemptEnd run_attempt(Attempt& attempt, const AttemptFolders& folders, const AttemptOptions& options) {
    fs::create_directories(folders.runs);
    std::string stopped;
    for (AttemptRun& run : attempt.runs) {
        const AttemptPlan& plan = attempt.plan;
        const auto reason =
            reason_to_stop(plan.stop_rule, losses_so_far(attempt, false), plan.target, plan.runs);
        stopped = reason.value_or("");
        if (reason) break;
        if (run.state == State::done || run.state == State::failed) continue;
        if (make_run(attempt, run, folders, options)) return AttemptEnd::interrupted;
    }
    attempt.result = judge_attempt(attempt, read_attempt_logs(attempt, folders.record), stopped);
    write_attempt(attempt, folders.summary());
    return AttemptEnd::complete;
}

}  // namespace speedrun
