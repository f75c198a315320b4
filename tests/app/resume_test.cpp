// A run that was cut and went on is the run that was not cut: the same losses and weights, bit for bit on as
// many ranks, one log with one clock.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "record/live/run_dir.h"
#include "support/golden_runs.h"
#include "support/running_job.h"
#include "support/step_hold.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

class Resume : public GoldenRuns {
  protected:
    Resume() { settings_ = rows_a_step(4); }
    // Starts the run in a process of its own and sends it `signal` once `step` steps are in its metrics.
    int interrupt(const std::string& name, const std::string& more, int64_t step, int signal) const {
        const StepHold hold(folder_ / name, step);
        RunningJob job(hold.environment() + command(name, more), folder_ / "out");
        EXPECT_TRUE(job.wait_until([&] { return steps_done(name) >= step; }));
        job.send(signal);
        hold.release();
        return job.finish().exit_code;
    }
};

const std::string save_often =
    "--set runtime.checkpoint.every_steps=1 --set runtime.checkpoint.keep_last=100 ";

// From every checkpoint of a run on two ranks, to its end: on two ranks the same bits, on one and on four the
// losses to 1e-5 as in tests of any count.
TEST_F(Resume, FromEverySplitPoint) {
    const TrainingRun whole = train(2, "whole", save_often);
    std::vector<fs::path> splits;
    for (const auto& entry : fs::directory_iterator(folder_ / "whole" / "checkpoints"))
        splits.push_back(entry.path());
    std::ranges::sort(splits);
    ASSERT_GE(splits.size(), 3U);
    for (const fs::path& split : splits) {
        SCOPED_TRACE(split.filename());
        const std::string from = "--resume " + split.string() + " ";
        const TrainingRun rest = train(2, "from_" + split.filename().string(), save_often + from);
        const auto steps = static_cast<ptrdiff_t>(rest.train_losses.size());
        EXPECT_TRUE(
            std::equal(rest.train_losses.begin(), rest.train_losses.end(), whole.train_losses.end() - steps));
        EXPECT_EQ(contents(rest.weights), contents(whole.weights));
    }
    for (const int ranks : {1, 4}) {
        const TrainingRun other =
            train(ranks, "on" + std::to_string(ranks), save_often + "--resume " + splits[1].string());
        ASSERT_LT(other.train_losses.size(), whole.train_losses.size());
        for (size_t i = 1; i <= other.train_losses.size(); ++i)
            EXPECT_NEAR(other.train_losses.rbegin()[i - 1], whole.train_losses.rbegin()[i - 1], 1e-4) << i;
    }
}

const std::string fp8_mlps =
    "--set numerics.mlp.up.format=fp8 --set numerics.mlp.down.format=fp8 "
    "--set numerics.mlp.down.exact_weight_steps=4 --set numerics.mlp.save_for_backward=post ";

// Scales of 8-bit floats that are delayed belong to the state: those of weights, from step 4 on, and each
// rank's own of activations. One rank that takes over from two has the larger of theirs: it rounds otherwise,
// and losses were up to 4.3e-4 apart.
TEST_F(Resume, ScalesOfEightBitFloatsToo) {
    const std::string often = save_often + fp8_mlps;
    const TrainingRun whole = train(2, "whole", often);
    for (const char* step : {"step_00000002", "step_00000004", "step_00000008"}) {
        SCOPED_TRACE(step);
        const std::string from = "--resume " + (folder_ / "whole/checkpoints" / step).string() + " ";
        const TrainingRun rest = train(2, std::string("from_") + step, often + from);
        EXPECT_TRUE(
            std::equal(rest.train_losses.rbegin(), rest.train_losses.rend(), whole.train_losses.rbegin()));
        EXPECT_EQ(contents(rest.weights), contents(whole.weights));
    }
    const TrainingRun alone =
        train(1, "alone", often + "--resume " + (folder_ / "whole/checkpoints/step_00000008").string());
    ASSERT_EQ(alone.train_losses.size(), 4U);
    for (size_t i = 0; i < 4; ++i)
        EXPECT_NEAR(alone.train_losses.rbegin()[i], whole.train_losses.rbegin()[i], 1e-3);
    // Another run with other numbers, so that the test would notice if nothing were in 8 bits.
    EXPECT_NE(train(2, "plain", "").train_losses, whole.train_losses);
}

// A run that had no 8-bit floats has left no scales: they begin as at a run's start.
TEST_F(Resume, EightBitFloatsMayBeginLater) {
    train(1, "whole", save_often);
    const std::string from = (folder_ / "whole/checkpoints/step_00000008").string();
    const TrainingRun rest = train(1, "rest", fp8_mlps + "--accept-changes --resume " + from);
    EXPECT_EQ(rest.train_losses.size(), 4U);
}

// SIGTERM saves between two steps of Adam too: gradients that wait for it are part of the state.
TEST_F(Resume, AfterSignalsTheRunAndItsLogsGoOn) {
    const TrainingRun whole = train(1, "whole", "");
    for (const int64_t step : {1, 2, 5}) {
        SCOPED_TRACE(step);
        const std::string name = "cut" + std::to_string(step);
        EXPECT_EQ(interrupt(name, "", step, SIGTERM), 130);
        const int64_t done = steps_done(name);
        ASSERT_LT(done, 12);
        expect_same_bits(train(1, name, "--resume auto "), whole);
        const std::string log = contents(folder_ / name / "log.txt");
        EXPECT_EQ(std::ranges::count(log, '='), std::ranges::count(whole.log, '='));  // one header
    }
}

// kill -9: what follows the last checkpoint is done again, and its lines are cut off the logs.
TEST_F(Resume, AfterKillNine) {
    const TrainingRun whole = train(1, "whole", "");
    EXPECT_EQ(interrupt("killed", save_often, 7, SIGKILL), 128 + SIGKILL);
    expect_same_bits(train(1, "killed", save_often + "--resume auto "), whole);
}

// The command of a job that is put back into the queue is the same each time.
TEST_F(Resume, KilledBeforeItsFirstCheckpoint) {
    const TrainingRun whole = train(1, "whole", "");
    EXPECT_EQ(interrupt("killed", "", 3, SIGKILL), 128 + SIGKILL);
    const JobResult job = start(1, "killed", "--resume auto ");
    EXPECT_EQ(job.exit_code, 0) << job.output;
    EXPECT_NE(job.output.find("before its first checkpoint"), std::string::npos) << job.output;
    EXPECT_EQ(contents(folder_ / "killed" / "weights.safetensors"), contents(whole.weights));
    const std::string weights = contents(whole.weights);
    const JobResult finished = start(1, "whole", "--resume auto ");
    EXPECT_EQ(finished.exit_code, 0);
    EXPECT_NE(finished.output.find("the run is finished already"), std::string::npos) << finished.output;
    EXPECT_EQ(contents(whole.weights), weights);
    const JobResult threads = start(1, "whole", "--resume auto --set runtime.threads=2");
    EXPECT_EQ(threads.exit_code, 0) << threads.output;
    fs::rename(folder_ / "train_1.bin", folder_ / "gone");
    const JobResult without_data = start(1, "whole", "--resume auto ");
    EXPECT_EQ(without_data.exit_code, 0) << without_data.output;
    fs::rename(folder_ / "gone", folder_ / "train_1.bin");
    const JobResult other = start(1, "whole", "--resume auto --set optimizer.matrix.lr=0.02");
    EXPECT_EQ(other.exit_code, 2);
    EXPECT_NE(other.output.find("already holds a run"), std::string::npos) << other.output;
    EXPECT_EQ(contents(whole.weights), weights);
}

TEST_F(Resume, DamagedCheckpointsArePassedOverAloud) {
    const TrainingRun whole = train(1, "whole", save_often);
    const fs::path checkpoints = folder_ / "whole" / "checkpoints";
    std::fstream weights(checkpoints / "step_00000012" / "weights.safetensors",
                         std::ios::in | std::ios::out | std::ios::binary);
    weights.seekp(100000);
    weights.put('x');
    weights.close();
    fs::resize_file(checkpoints / "step_00000010" / "optimizer.safetensors", 1000);
    std::ofstream(checkpoints / "step_00000008" / "checkpoint.json") << "{\"step\": 8";
    const JobResult job = start(1, "whole", save_often + "--resume auto ");
    EXPECT_EQ(job.exit_code, 0) << job.output;
    EXPECT_NE(job.output.find("step_00000012/weights.safetensors: its bytes are not those that were written"),
              std::string::npos)
        << job.output;
    EXPECT_NE(job.output.find("optimizer.safetensors: has 1000 bytes"), std::string::npos);
    EXPECT_NE(job.output.find("step_00000008/checkpoint.json"), std::string::npos);
    EXPECT_NE(job.output.find("resumed from"), std::string::npos);
    EXPECT_EQ(contents(whole.weights).size(), contents(folder_ / "whole" / "weights.safetensors").size());
}

TEST_F(Resume, ChangedConfigsAreListedAndAskedAbout) {
    train(1, "whole", save_often);
    const std::string resume = save_often + "--resume " + (folder_ / "whole").string() + " ";
    const JobResult refused = start(1, "a", resume + "--set optimizer.matrix.lr=0.02");
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_NE(refused.output.find("--accept-changes"), std::string::npos) << refused.output;
    EXPECT_NE(refused.output.find("optimizer.matrix.lr: 0.03 -> 0.02"), std::string::npos);
    EXPECT_FALSE(fs::exists(folder_ / "a"));
    const JobResult accepted = start(1, "b", resume + "--set optimizer.matrix.lr=0.02 --accept-changes");
    EXPECT_EQ(accepted.exit_code, 0) << accepted.output;
    EXPECT_NE(contents(folder_ / "b" / "log.txt").find("config differs: optimizer.matrix.lr"),
              std::string::npos);
    const JobResult never = start(1, "c", resume + "--set model.rope.theta=2048 --accept-changes");
    EXPECT_EQ(never.exit_code, 2);
    EXPECT_NE(never.output.find("another model"), std::string::npos) << never.output;
}

TEST_F(Resume, OneRunADirectory) {
    const RunDir held = RunDir::claim(folder_ / "held", {});
    const JobResult job = start(1, "held", "");
    EXPECT_EQ(job.exit_code, 2);
    EXPECT_NE(job.output.find("another run is using it"), std::string::npos) << job.output;
}

TEST_F(Resume, NothingToResumeIsSaid) {
    const JobResult job = start(1, "new", "--resume " + (folder_ / "nowhere").string());
    EXPECT_EQ(job.exit_code, 2);
    EXPECT_NE(job.output.find("no checkpoint there"), std::string::npos) << job.output;
    EXPECT_EQ(start(1, "fresh", "--resume auto").exit_code, 0);  // nothing yet: it starts
}

}  // namespace
}  // namespace speedrun
