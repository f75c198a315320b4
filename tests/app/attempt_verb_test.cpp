// record attempt, report and watch as a user runs them. Training is played by a shell script, which --launch
// puts before the program, except in the one test that trains.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "data/shard.h"
#include "record/log/run_log.h"
#include "record/log_builder.h"
#include "support/file_text.h"
#include "support/golden_inputs.h"
#include "support/outcome.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

class AttemptVerb : public ::testing::Test {
  protected:
    // Called as: fake EXECUTABLE train --config C --run-dir D --set runtime.seed=S [--overwrite]
    AttemptVerb() {
        write_file(
            script(),
            "dir=$6; seed=${8#runtime.seed=}\n"
            "echo \"$seed $9\" >>" +
                (folder_ / "calls").string() +
                "\n[ -e \"$dir\" ] && [ \"$9\" != --overwrite ] && exit 2\n"
                "[ -e " +
                (folder_ / "stop_at_").string() +
                "$seed ] && kill -TERM $PPID && sleep 20\n"
                "[ -e " +
                (folder_ / "fail_at_").string() +
                "$seed ] && exit 3\n"
                "mkdir -p \"$dir\"; cp " +
                (folder_ / "log_").string() +
                "$seed \"$dir/log.txt\"\n"
                "touch \"$dir/weights.safetensors\"\n"
                "if [ -e " +
                (folder_ / "nan_at_").string() +
                "$seed ]; then echo {\\\"state\\\": \\\"diverged\\\"} >\"$dir/status.json\"; exit 2; fi\n"
                "if [ -e " +
                (folder_ / "full_at_").string() +
                "$seed ]; then echo {\\\"state\\\": \\\"failed\\\"} >\"$dir/status.json\"; exit 2; fi\n");
        for (int seed = 7; seed < 12; ++seed)
            write_file(folder_ / ("log_" + std::to_string(seed)), log_text(20, 3.27 + 0.001 * seed));
    }

    fs::path script() const { return folder_ / "fake.sh"; }
    fs::path record() const { return folder_ / "rec"; }

    // Runs the program with `words` of the shell behind "record".
    Outcome speedrun(const std::string& words) const {
        const std::string command = std::string(SPEEDRUN_EXECUTABLE) + " record " + words + " >" +
                                    (folder_ / "out").string() + " 2>" + (folder_ / "err").string();
        const int status = std::system(command.c_str());
        return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, contents(folder_ / "out"),
                contents(folder_ / "err")};
    }

    Outcome attempt(const std::string& more = "") const {
        return speedrun("attempt " SPEEDRUN_SOURCE_DIR
                        "/tests/golden/golden_tiny.json --runs 3 --seed 7 --name tiny "
                        "--out " +
                        record().string() + " --runs-dir " + (folder_ / "runs").string() + " --launch 'sh " +
                        script().string() + "' " + more);
    }

    nlohmann::json summary() const { return nlohmann::json::parse(contents(record() / "summary.json")); }
    std::string calls() const { return contents(folder_ / "calls"); }

    TemporaryFolder folder_;
};

TEST_F(AttemptVerb, MakesItsRunsAndJudgesThem) {
    const Outcome bad = attempt();
    EXPECT_EQ(bad.exit_code, 1) << bad.err;
    EXPECT_EQ(calls(), "7 \n8 \n9 \n");
    const auto all = summary();
    EXPECT_EQ(all["result"]["verdict"], "not a record");
    EXPECT_EQ(all["stated_before_the_first_run"]["stop_rule"], "none");
    EXPECT_EQ(all["runs"][2]["val_loss"], 3.279);
    EXPECT_EQ(contents(record() / "run_01_seed_8.txt"), contents(folder_ / "log_8"));
    EXPECT_NE(contents(record() / "README.md").find("losses = [3.2770, 3.2780, 3.2790]"), std::string::npos);
    EXPECT_TRUE(fs::exists(record() / "config.json"));
    EXPECT_FALSE(fs::exists(folder_ / "runs/run_00/weights.safetensors"));
    EXPECT_EQ(speedrun("check " + record().string()).exit_code, 1) << "check agrees";
    EXPECT_EQ(attempt().exit_code, 1) << "a finished attempt is only judged again";
    EXPECT_EQ(calls(), "7 \n8 \n9 \n");
}

TEST_F(AttemptVerb, ExitCodeZeroIsBelowTheTarget) {
    const Outcome good = attempt("--target 3.3 --json");
    EXPECT_EQ(good.exit_code, 0) << good.err;
    EXPECT_EQ(nlohmann::json::parse(good.out)["result"]["verdict"], "below target, p < 0.01");
}

// A learning rate of 0.03 costs 0.002 with every seed, 0.02 nothing.
TEST_F(AttemptVerb, AGridComparesEachCellWithTheConfigAsItIs) {
    write_file(script(), "dir=$6; seed=${8#runtime.seed=}; echo \"$seed\" >>" + (folder_ / "calls").string() +
                             "\ncase $dir in *lr=0.03*) seed=$((seed + 2));; esac\nmkdir -p \"$dir\"; cp " +
                             (folder_ / "log_").string() +
                             "$seed \"$dir/log.txt\"; touch \"$dir/weights.safetensors\"\n");
    const Outcome mistaken = attempt("--grid optimizer.matrix.lr=0.02,-1");
    EXPECT_EQ(mistaken.exit_code, 2);
    EXPECT_NE(mistaken.err.find("optimizer.matrix.lr"), std::string::npos) << mistaken.err;
    EXPECT_FALSE(fs::exists(folder_ / "calls")) << "mistakes are found before the first run";

    const std::string grid = "--json --grid optimizer.matrix.lr=0.02,0.03";
    const Outcome whole = attempt(grid);
    ASSERT_EQ(whole.exit_code, 0) << whole.err;
    const auto cells = nlohmann::json::parse(whole.out);
    ASSERT_EQ(cells.size(), 3U);
    EXPECT_TRUE(cells[0]["difference"]["value"].is_null());
    EXPECT_EQ(cells[1]["difference"]["value"], 0.0);
    EXPECT_NEAR(cells[2]["difference"]["value"].get<double>(), 0.002, 1e-9);
    EXPECT_TRUE(fs::exists(record() / "lr=0.03/summary.json"));
    EXPECT_NE(contents(record() / "README.md").find("lr=0.03"), std::string::npos);
    const std::string made = calls();
    EXPECT_EQ(std::ranges::count(made, '\n'), 9);

    EXPECT_EQ(attempt(grid).out, whole.out) << "a finished grid is only judged again";
    EXPECT_EQ(calls(), made);
    const Outcome other = attempt("--grid optimizer.matrix.lr=0.04");
    EXPECT_EQ(other.exit_code, 2);
    EXPECT_NE(other.err.find("another grid was stated"), std::string::npos) << other.err;
    EXPECT_EQ(attempt(grid + " --stop-rule futility:2").exit_code, 2);
}

TEST_F(AttemptVerb, GoesOnWhereItWasInterrupted) {
    write_file(folder_ / "stop_at_8", "");
    const Outcome stopped = attempt();
    EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
    EXPECT_NE(stopped.err.find("the same command continues it"), std::string::npos) << stopped.err;
    EXPECT_TRUE(summary()["result"].is_null());
    const std::string first = contents(record() / "run_00_seed_7.txt");
    fs::remove(folder_ / "stop_at_8");
    const Outcome changed = attempt("--target 3.3");
    EXPECT_EQ(changed.exit_code, 2);
    EXPECT_NE(changed.err.find("the target 3.28, not 3.3"), std::string::npos) << changed.err;
    EXPECT_EQ(attempt().exit_code, 1);
    EXPECT_EQ(calls(), "7 \n8 \n8 --overwrite\n9 \n");
    EXPECT_EQ(contents(record() / "run_00_seed_7.txt"), first);
    EXPECT_EQ(summary()["runs"][1]["starts"], 2);
    EXPECT_NE(contents(record() / "README.md").find("1 runs were interrupted"), std::string::npos);
}

TEST_F(AttemptVerb, ARunThatBreaksStopsItAndADivergedOneFailsIt) {
    write_file(folder_ / "fail_at_8", "");
    const Outcome broken = attempt();
    EXPECT_EQ(broken.exit_code, 2);
    EXPECT_NE(broken.err.find("seed 8 ended with exit code 3"), std::string::npos) << broken.err;
    fs::remove(folder_ / "fail_at_8");
    write_file(folder_ / "nan_at_8", "");
    write_file(folder_ / "log_8", step_line(1, 20, 50) + "\n");
    EXPECT_EQ(attempt().exit_code, 1);
    const auto all = summary();
    EXPECT_EQ(all["runs"][1]["state"], "failed");
    EXPECT_EQ(all["runs"][2]["state"], "waiting");
    EXPECT_EQ(all["result"]["stopped_early"], "a final loss is not a number");
}

// A run that has taken steps and ends by a full disk is made again, and one that is there already is
// nobody's.
TEST_F(AttemptVerb, OnlyARunThatDivergesCountsAsFailed) {
    write_file(folder_ / "full_at_8", "");
    const Outcome full = attempt();
    EXPECT_EQ(full.exit_code, 2);
    EXPECT_NE(full.err.find("seed 8 ended with exit code 2; the same command continues"), std::string::npos)
        << full.err;
    EXPECT_EQ(summary()["runs"][1]["state"], "started");
    fs::remove(folder_ / "full_at_8");
    write_file(folder_ / "runs/run_02/log.txt", "somebody's");
    const Outcome taken = attempt();
    EXPECT_EQ(taken.exit_code, 2);
    EXPECT_NE(taken.err.find("run_02: is there already"), std::string::npos) << taken.err;
    EXPECT_EQ(contents(folder_ / "runs/run_02/log.txt"), "somebody's");
    fs::remove_all(folder_ / "runs/run_02");
    EXPECT_EQ(attempt().exit_code, 1);
    EXPECT_EQ(calls(), "7 \n8 \n8 --overwrite\n9 \n");
}

// What a seed does not change is no second sample: the attempt ends as soon as a run repeats another.
TEST_F(AttemptVerb, RepeatsAreNotCounted) {
    write_file(folder_ / "log_7", log_text(40, 3.27, 50));
    write_file(folder_ / "log_8", log_text(40, 3.27, 51));
    const Outcome outcome = attempt("--target 3.3");
    EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
    EXPECT_EQ(calls(), "7 \n8 \n");
    EXPECT_NE(
        outcome.out.find("not a record: refused, as runs repeat others: run_01_seed_8.txt: the same run as"),
        std::string::npos)
        << outcome.out;
}

TEST_F(AttemptVerb, GoesOnWhereItWasKilledAtItsBeginning) {
    write_file(record() / "config.json", "{}");
    write_file(record() / ".summary.json.tmp-12-34", "half");
    EXPECT_EQ(attempt().exit_code, 1);
    EXPECT_EQ(summary()["runs"].size(), 3U);
}

TEST_F(AttemptVerb, TakesTurnsWithABaselineAndStopsByItsRule) {
    const Outcome outcome = attempt("--baseline " SPEEDRUN_SOURCE_DIR
                                    "/configs/quickstart.json --target 3.2 "
                                    "--stop-rule futility:2");
    EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
    EXPECT_EQ(calls(), "7 \n7 \n8 \n8 \n");
    EXPECT_TRUE(fs::exists(record() / "baseline/run_01_seed_8.txt"));
    EXPECT_TRUE(fs::exists(record() / "this_record/run_01_seed_8.txt"));
    EXPECT_TRUE(fs::exists(record() / "baseline_config.json"));
    EXPECT_EQ(summary()["result"]["comparison"]["time_ms"]["difference"], 0);
    EXPECT_NE(contents(record() / "README.md").find("data.train: "), std::string::npos)
        << "the configs' difference";
}

TEST_F(AttemptVerb, MistakesAreSaidBeforeAnythingIsRun) {
    for (const char* more :
         {"--runs 0", "--stop-rule never", "--target -1", "--set no.such=1", "--unknown"}) {
        const Outcome outcome = attempt(more);
        EXPECT_EQ(outcome.exit_code, 2) << more << outcome.err;
        EXPECT_FALSE(fs::exists(record() / "summary.json")) << more;
    }
    write_file(record() / "something", "x");
    EXPECT_NE(attempt().err.find("is not empty"), std::string::npos);
    EXPECT_EQ(speedrun("attempt").exit_code, 2);
    EXPECT_EQ(calls(), "");
}

// The real thing, on the tiny golden model.
TEST_F(AttemptVerb, TrainsEachSeed) {
    write_shard(folder_ / "train_1.bin", golden::train_tokens_1());
    write_shard(folder_ / "val_0.bin", golden::val_tokens());
    const Outcome outcome = speedrun("attempt " SPEEDRUN_SOURCE_DIR
                                     "/tests/golden/golden_tiny.json --runs 2 --seed 7 --target 10 --out " +
                                     record().string() + " --runs-dir " + (folder_ / "runs").string() +
                                     " --set data.train=" + (folder_ / "train_*.bin").string() +
                                     " --set data.val=" + (folder_ / "val_*.bin").string() +
                                     " --set schedule.scheduled_steps=2 --set schedule.extension_steps=1");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
    const RunLog first = read_run_log(record() / "run_00_seed_7.txt"),
                 second = read_run_log(record() / "run_01_seed_8.txt");
    EXPECT_EQ(first.runs.at(0).seed, 7U);
    EXPECT_EQ(second.runs.at(0).seed, 8U);
    EXPECT_NE(first.runs.at(0).last_validation->loss, second.runs.at(0).last_validation->loss);
}

TEST_F(AttemptVerb, ReportWritesAPageAndPictures) {
    for (int i = 0; i < 3; ++i)
        write_file(folder_ / "a" / (std::to_string(i) + ".txt"), log_text(20, 3.27 + 0.001 * i));
    const std::string page = folder_ / "page.html", pictures = folder_ / "svg";
    const Outcome outcome =
        speedrun("report " + (folder_ / "a").string() + " -o " + page + " --svg " + pictures + " --json");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(nlohmann::json::parse(outcome.out)["written"].size(), 6U);
    EXPECT_NE(contents(page).find("</html>"), std::string::npos);
    EXPECT_NE(contents(pictures + "/step_times.svg").find("<style>"), std::string::npos);
    EXPECT_EQ(speedrun("report /nowhere").exit_code, 2);
    EXPECT_EQ(speedrun("report " + (folder_ / "a").string() + " -o /nowhere/page.html").exit_code, 2);
}

TEST_F(AttemptVerb, WatchEndsWithTheRun) {
    write_file(folder_ / "run/log.txt", log_text(20, 3.27));
    const Outcome text = speedrun("watch " + (folder_ / "run").string());
    EXPECT_EQ(text.exit_code, 0) << text.err;
    EXPECT_NE(text.out.find("complete, step 20, train_time 1000 ms, 0 stalls"), std::string::npos)
        << text.out;
    write_file(folder_ / "cut.txt", step_line(1, 9, 50) + "\n");
    const Outcome ended = speedrun("watch --patience 0 --json " + (folder_ / "cut.txt").string());
    EXPECT_EQ(ended.exit_code, 1);
    EXPECT_EQ(
        nlohmann::json::parse(ended.out.substr(ended.out.rfind('\n', ended.out.size() - 2) + 1))["state"],
        "ended");
    EXPECT_EQ(speedrun("watch --once " + (folder_ / "cut.txt").string()).exit_code, 0);
    EXPECT_EQ(speedrun("watch " + (folder_ / "none").string()).exit_code, 2);
}

}  // namespace
}  // namespace speedrun
