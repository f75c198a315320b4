// The golden run of record 43 as a user starts it on many ranks: `mpirun -n W speedrun train`. The same
// losses and weights whatever W, the same bits for the same W.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "model/gpt.h"
#include "model/load_config.h"
#include "model/weights.h"
#include "support/golden_runs.h"

namespace speedrun {
namespace {

class Ranks : public GoldenRuns {};

void expect_same_losses(const TrainingRun& a, const TrainingRun& b) {
    ASSERT_EQ(a.train_losses.size(), b.train_losses.size());
    ASSERT_EQ(a.val_losses.size(), b.val_losses.size());
    for (size_t i = 0; i < a.train_losses.size(); ++i)
        EXPECT_NEAR(a.train_losses[i], b.train_losses[i], 1e-5 * b.train_losses[i]) << "step " << i;
    for (size_t i = 0; i < a.val_losses.size(); ++i)
        EXPECT_NEAR(a.val_losses[i], b.val_losses[i], 1e-5 * b.val_losses[i]) << "validation " << i;
}

// Micro-batches are summed by ranks and not one after the other, so sums round differently: 1e-5 of a loss
// and the golden file's own tolerances of weights hold whatever the count.
TEST_F(Ranks, GoldenRunOnOneTwoFourAndEight) {
    const json golden = read_json(SPEEDRUN_SOURCE_DIR "/tests/golden/record43.json");
    const Config config = load_config(golden_config);
    const TrainingRun one = train(1, "one");
    EXPECT_TRUE(one.state_bytes.empty());
    for (const int ranks : {2, 4, 8}) {
        SCOPED_TRACE(ranks);
        const TrainingRun run = train(ranks, "on" + std::to_string(ranks));
        ASSERT_EQ(run.train_losses.size(), 12U);
        expect_same_losses(run, one);
        for (size_t step = 0; step < 12; ++step) {
            const json& expected = golden["losses"][std::to_string(step)];
            EXPECT_NEAR(run.train_losses[step], expected["mean_f64"].get<double>(),
                        expected["tol_mean"].get<double>());
        }
        GPT model(config, 512, at::kCPU);
        load_weights(model.parameters(), run.weights);
        for (const Parameter& parameter : model.parameters().all())
            for (const StateDictEntry& entry : state_dict_entries(parameter.config))
                expect_matches(golden["tensors"]["weights_after12"].at(entry.name), entry.of(parameter.value),
                               entry.name);
    }
}

// Optimizer state is on its owner only: the ranks' shares add up to that of one rank, and the largest exceeds
// an equal share by a unit of each bucket at most. The counts of steps are on every rank, 8
// bytes for each of nine parameters.
TEST_F(Ranks, OptimizerStateIsSharded) {
    std::map<int, std::vector<int64_t>> bytes;
    for (const int ranks : {2, 4, 8}) {
        const TrainingRun run = train(ranks, "on" + std::to_string(ranks),
                                      "--set schedule.scheduled_steps=1 --set schedule.extension_steps=1");
        bytes[ranks] = run.state_bytes;
        ASSERT_EQ(bytes[ranks].size(), static_cast<size_t>(ranks));
    }
    const auto total = [&](int ranks) {
        int64_t sum = 0;
        for (const int64_t own : bytes[ranks]) sum += own - 9 * 8;
        return sum;
    };
    EXPECT_EQ(total(2), total(4));
    EXPECT_EQ(total(2), total(8));
    for (const int ranks : {2, 4, 8})
        EXPECT_LT(static_cast<double>(*std::ranges::max_element(bytes[ranks])),
                  1.02 * static_cast<double>(total(ranks)) / ranks);
}

// 3, 5, 6 and 7 ranks, whose shares are uneven, against one rank on the same batches.
TEST_F(Ranks, CountsThatDoNotDivideTheParameters) {
    for (const int ranks : {3, 5, 6, 7}) {
        SCOPED_TRACE(ranks);
        std::string stages =
            "--set schedule.scheduled_steps=3 --set schedule.extension_steps=1 --set data.rows=" +
            std::to_string(ranks) + " ";
        for (int stage = 0; stage < 4; ++stage)
            stages += "--set schedule.stages[" + std::to_string(stage) +
                      "].batch_tokens=" + std::to_string(256 * ranks) + " ";
        const TrainingRun many = train(ranks, "many" + std::to_string(ranks), stages);
        ASSERT_EQ(many.train_losses.size(), 4U);
        expect_same_losses(many, train(1, "one" + std::to_string(ranks), stages));
    }
}

// Twice on three ranks, and once more with reductions that start during backward: not a bit differs.
TEST_F(Ranks, TheSameBitsEveryTime) {
    const std::string four =
        "--set data.rows=6 --set schedule.stages[0].batch_tokens=1536 --set "
        "schedule.stages[1].batch_tokens=1536 "
        "--set schedule.stages[2].batch_tokens=1536 --set schedule.stages[3].batch_tokens=1536 "
        "--set schedule.scheduled_steps=3 --set schedule.extension_steps=1 ";
    const TrainingRun first = train(3, "first", four), second = train(3, "second", four);
    const TrainingRun early = train(3, "early", four + "--set optimizer.comm.launch=on_grad_ready");
    EXPECT_EQ(first.train_losses, second.train_losses);
    EXPECT_EQ(first.train_losses, early.train_losses);
    EXPECT_EQ(first.val_losses, second.val_losses);
    EXPECT_EQ(contents(first.weights), contents(second.weights));
    EXPECT_EQ(contents(first.weights), contents(early.weights));
}

// Under mpirun the ranks meet, and the mistake is printed once; torchrun's have no way to meet on CPUs, and
// it is still the mistake that is named.
TEST_F(Ranks, AMistakeInTheConfigIsNamedWhoeverStartsThem) {
    const std::string wrong = command("wrong", "--set nonsense=1");
    const std::string torchrun =
        "RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=29500 ";
    for (const JobResult& job : {mpirun(2, wrong), run_command(torchrun + wrong)}) {
        EXPECT_EQ(job.exit_code, 2) << job.output;
        const size_t at = job.output.find("no key \"nonsense\"");
        EXPECT_NE(at, std::string::npos) << job.output;
        EXPECT_EQ(job.output.find("no key \"nonsense\"", at + 1), std::string::npos) << job.output;
    }
}

TEST_F(Ranks, CountsThatDoNotDivideTheBatchAreRefused) {
    const JobResult job = start(3, "refused", "");
    EXPECT_EQ(job.exit_code, 2);
    EXPECT_NE(job.output.find("do not divide over 3 ranks; the nearest counts that do: 2 or 4"),
              std::string::npos)
        << job.output;
}

}  // namespace
}  // namespace speedrun
