// `speedrun plan` as a user has it.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/shard.h"
#include "support/golden_inputs.h"
#include "support/golden_runs.h"
#include "support/mpirun.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

using Json = nlohmann::json;

JobResult plan(const std::string& arguments) {
    return run_command(SPEEDRUN_EXECUTABLE " plan " + arguments);
}

// The figures of the log of a real run, "rank 1: optimizer state 5543944 bytes, ..., sent 9045204 bytes a
// step, ...".
TEST(PlanVerb, AgreesWithTheLogOfARun) {
    if (!have_mpirun()) GTEST_SKIP() << "needs Open MPI's mpirun";
    const TemporaryFolder folder;
    write_shard(folder / "train.bin", golden::train_tokens_1());
    write_shard(folder / "val.bin", golden::val_tokens());
    for (const int ranks : {2, 4}) {
        const std::string dir = (folder / ("on" + std::to_string(ranks))).string();
        const JobResult job =
            mpirun(ranks,
                   SPEEDRUN_EXECUTABLE " train --config " + golden_config + " --run-dir " + dir +
                       " --set data.train=" + (folder / "train.bin").string() +
                       " --set data.val=" + (folder / "val.bin").string() + " --set runtime.threads=1",
                   240);
        ASSERT_EQ(job.exit_code, 0) << job.output;
        const JobResult planned =
            plan("--config " + golden_config + " --ranks " + std::to_string(ranks) + " --gpu cpu --json");
        ASSERT_EQ(planned.exit_code, 0) << planned.output;
        const Json json = Json::parse(planned.output);
        std::ostringstream log;
        log << std::ifstream(dir + "/log.txt").rdbuf();
        for (size_t rank = 0; rank < static_cast<size_t>(ranks); ++rank) {
            const std::string state = "rank " + std::to_string(rank) + ": optimizer state " +
                                      json["memory"][rank]["optimizer_state"].dump() + " bytes",
                              sent = "sent " + json["sent"][rank]["mean_of_run"].dump() + " bytes a step";
            const size_t at = log.str().find(state);
            ASSERT_NE(at, std::string::npos) << state;
            const std::string line = log.str().substr(at, log.str().find('\n', at) - at);
            EXPECT_NE(line.find(sent), std::string::npos) << sent << " is not in: " << line;
        }
    }
}

TEST(PlanVerb, SaysEverythingOfRecord43) {
    const JobResult found = plan("--config " + record_config + " --ranks 8 --gpu h100");
    EXPECT_EQ(found.exit_code, 0);
    for (const char* text :
         {"a step: 262,144 tokens = 8 x 1 micro-batches of 32,768", "none of it measured here",
          "rank 3  attn_qkvo[6:8]", "rank 5  mlp_fc[0:2]", "rank 2  mlp_fc[10:11] + mlp_proj[0:1]",
          "optimizer state", "fewest rows that fit", "without Adam", "It stops scaling at",
          "The batch has 8 rows"})
        EXPECT_NE(found.output.find(text), std::string::npos) << text << " is not in:\n" << found.output;
}

// Steps of the last stage, whose floor `step` says, have three times the tokens of those of the first.
TEST(PlanVerb, PriceOfARunAndAnAttempt) {
    const std::string config = "--config " SPEEDRUN_SOURCE_DIR "/configs/record_89.json --ranks 8 ";
    const JobResult found = plan(config + "--gpu H100 --price 3.00 --runs 5 --json");
    ASSERT_EQ(found.exit_code, 0) << found.output;
    const Json json = Json::parse(found.output), price = json["price"];
    EXPECT_EQ(json["assumed"]["name"], "h100") << "whatever its case";
    const double seconds = price["run_seconds"],
                 longest = 1285 * json["step"]["with_adam"]["floor_s"].get<double>();
    EXPECT_LT(seconds, longest);
    EXPECT_GT(seconds, longest / 3);
    EXPECT_NEAR(price["run"].get<double>(), seconds / 3600 * 8 * 3, 1e-9);
    EXPECT_NEAR(price["attempt"].get<double>(), 5 * price["run"].get<double>(), 1e-9);
    EXPECT_NE(plan(config + "--price 3").output.find("price at $3.00 an hour of a GPU"), std::string::npos);
    EXPECT_EQ(plan(config).output.find("price"), std::string::npos);
}

TEST(PlanVerb, OnAThousandRanksOnlySomeOwn) {
    const JobResult found =
        plan("--config " + record_config + " --set data.rows=1024 --ranks 1024 --ranks-per-node 8 --json");
    ASSERT_EQ(found.exit_code, 0) << found.output;
    const Json json = Json::parse(found.output);
    EXPECT_EQ(json["grad_accum_steps"], 1);
    EXPECT_EQ(json["memory"].size(), 1024U);
    const Json& owners = json["buckets"][6]["owners"];
    EXPECT_FALSE(owners[15].empty());
    EXPECT_TRUE(owners[16].empty());
}

TEST(PlanVerb, MoreRowsForSmallerMemory) {
    const auto fewest = [](const std::string& more) {
        const JobResult found =
            plan("--config " + record_config + " --set data.val_micro_batch_tokens=32768 " +
                 "--ranks 1 --json " + more);
        EXPECT_EQ(found.exit_code, 0) << found.output;
        const Json json = Json::parse(found.output);
        return json.value("fewest_rows", int64_t{0});
    };
    const int64_t on_h100 = fewest("--gpu h100"), on_24 = fewest("--gpu h100 --memory-gib 24");
    EXPECT_GT(on_h100, 0);
    EXPECT_LT(on_h100, on_24);
    EXPECT_EQ(262144 % on_24, 0);
    EXPECT_EQ(fewest("--gpu h100 --memory-gib 3"), 0);
}

// One line where a stage begins, where a ramp begins or ends, and at the end.
TEST(PlanVerb, ScheduleOfRecord43) {
    const JobResult found = plan("--config " + record_config + " --schedule --json");
    ASSERT_EQ(found.exit_code, 0) << found.output;
    std::vector<int64_t> steps;
    for (const Json& line : Json::parse(found.output)) steps.push_back(line["step"]);
    // 300: momentum warm; 735, 1470, 2205: stages; 1102: the learning rate begins to fall (half of 2205),
    // 2204: clamp_x ends that; 2195: momentum cools down; 2245: the last validation.
    EXPECT_EQ(steps, (std::vector<int64_t>{0, 300, 735, 1102, 1103, 1470, 2195, 2204, 2205, 2245}));
    const JobResult every = plan("--config " + golden_config + " --schedule --every 1");
    EXPECT_EQ(std::ranges::count(every.output, '\n'), 2 + 13) << every.output;
}

TEST(PlanVerb, Mistakes) {
    const auto expect_error = [](const std::string& arguments, const std::string& text) {
        const JobResult found = plan(arguments);
        EXPECT_EQ(found.exit_code, 2) << arguments;
        EXPECT_NE(found.output.find(text), std::string::npos) << found.output;
    };
    expect_error("--config " + golden_config + " --ranks 3",
                 "do not divide over 3 ranks; the nearest counts that do: 2 or 4");
    expect_error("--config " + golden_config + " --gpu h10", "did you mean \"h100\"");
    expect_error("--config " + golden_config + " --ranks 0", "--ranks is 0, allowed: 1 to");
    expect_error("--config " + golden_config + " --link-gbps -1", "--link-gbps must be positive");
    expect_error("--config " + golden_config + " --price 0", "--price is 0, allowed: dollars above 0");
    expect_error("--config " + golden_config + " --price 3 --runs 0", "--runs is 0, allowed: 1 to 1000");
    expect_error("--ranks 2", "plan needs --config");
}

}  // namespace
}  // namespace speedrun
