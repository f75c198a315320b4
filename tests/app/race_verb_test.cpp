// bench optimizers as a user runs it, on the golden model.
#include <gtest/gtest.h>

#include <csignal>

#include "record/race/race.h"
#include "support/golden_runs.h"
#include "support/running_job.h"
#include "support/step_hold.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

class RaceVerb : public GoldenRuns {
  protected:
    void SetUp() override {}
    std::string race(const std::string& more) const {
        return std::string(SPEEDRUN_EXECUTABLE) + " bench optimizers --config " + golden_config + " --out " +
               (folder_ / "race").string() + " --set data.train=" + (folder_ / "train_1.bin").string() +
               " --set data.val=" + (folder_ / "val_0.bin").string() +
               " --set data.val_tokens=1024 --set runtime.threads=1 --set schedule.extension_steps=1" +
               " --set schedule.scheduled_steps=2 --set runtime.seed=1 " + rows_a_step(2) + more;
    }
    Race read() const { return read_race(folder_ / "race" / "race.json"); }
};

TEST_F(RaceVerb, IsContinuedWhereItWasStopped) {
    const std::string command = race("--rules muon --rules sgd --seeds 2 --neighbours 0");
    const std::string second = "race/sgd_lr0.0001_seed1";
    const StepHold hold(folder_ / second, 1);
    RunningJob first(hold.environment() + command, folder_ / "out");
    ASSERT_TRUE(first.wait_until([&] { return steps_done(second) == 1; }));
    first.send(SIGTERM);
    hold.release();
    EXPECT_EQ(first.finish(120).exit_code, kInterrupted);
    const size_t before = read().runs.size();
    EXPECT_GE(before, 1U);  // muon's
    EXPECT_LT(before, 4U);
    const JobResult rest = run_command(command, 120);
    ASSERT_EQ(rest.exit_code, 0) << rest.output;
    const Race race = read();
    ASSERT_EQ(race.runs.size(), 4U);
    EXPECT_FALSE(next_run(race));
    // Same tokens and, with one seed, same initial weights: only what was learnt differs.
    EXPECT_EQ(race.runs[0].validations.front().loss, race.runs[1].validations.front().loss);
    EXPECT_NE(race.runs[0].final_loss(), race.runs[1].final_loss());
    EXPECT_NE(race.runs[0].final_loss(), race.runs[2].final_loss());
    EXPECT_GT(race.costs.at("muon").state_bytes, 0);
    for (const char* word : {"muon", "sgd", "final loss", "race.html", "loss_over_time.svg"})
        EXPECT_NE(rest.output.find(word), std::string::npos) << word << rest.output;
    const std::string page = contents(folder_ / "race" / "race.html");
    EXPECT_NE(page.find("Learning rates"), std::string::npos);
    // Another rule may join, another number of seeds is another race.
    EXPECT_EQ(run_command(command + " --rules ogsignmuon", 120).exit_code, 0);
    EXPECT_EQ(read().runs.size(), 6U);
    const JobResult other = run_command(command + " --seeds 3", 120);
    EXPECT_EQ(other.exit_code, kUserError) << other.output;
}

TEST_F(RaceVerb, ARuleThatDivergesIsSaidToDiverge) {
    const JobResult result = run_command(
        race("--rules muon --rules normuon --seeds 1 --neighbours 0 --set optimizer.matrix.lr=1e30"), 120);
    ASSERT_EQ(result.exit_code, 0) << result.output;
    const Race race = read();
    ASSERT_EQ(race.runs.size(), 2U);
    EXPECT_FALSE(race.runs[0].diverged);
    EXPECT_TRUE(race.runs[1].diverged);
    EXPECT_NE(result.output.find("diverged"), std::string::npos);
}

TEST_F(RaceVerb, MistakesChangeNothing) {
    for (const auto& [more, said] :
         {std::pair{"--rules adam", "soap"}, {"--seeds 0", "--seeds"}, {"--neighbours 9", "--neighbours"}}) {
        const JobResult result = run_command(race(more), 120);
        EXPECT_EQ(result.exit_code, kUserError);
        EXPECT_NE(result.output.find(said), std::string::npos) << result.output;
        EXPECT_FALSE(std::filesystem::exists(folder_ / "race"));
    }
}

}  // namespace
}  // namespace speedrun
