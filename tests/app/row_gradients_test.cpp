// A record with a table of hashes on several ranks, whose gradients go by rows (optimizer.params.*.comm
// sharded_sparse) or as a whole: the same bits, fewer bytes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data/loader.h"
#include "data/shard.h"
#include "data/step_shapes.h"
#include "model/bigram_rows.h"
#include "model/graph/graph.h"
#include "model/load_config.h"
#include "plan/traffic.h"
#include "support/golden_runs.h"

namespace speedrun {
namespace {

const std::string tiny_62 = SPEEDRUN_SOURCE_DIR "/tests/golden/record_62_tiny.json";
const std::string by_rows = "--set optimizer.params.bigram_embed.comm=sharded_sparse ";
// Gradients that wait for Adam are saved with the last step alone, as 11 is odd.
// The momentum would come down towards an end that the runs do not share.
const std::string saving =
    "--set runtime.checkpoint.every_steps=100 --set optimizer.matrix.momentum.cooldown_steps=0 ";
const std::string eleven_steps = "--set schedule.extension_steps=2 " + saving;

class RowGradients : public GoldenRuns {
  protected:
    RowGradients() {
        write_shard(folder_ / "train.bin", golden::make_tokens("rows/train", 90000, golden::kBos));
        write_shard(folder_ / "val.bin", golden::make_tokens("rows/val", 8000, golden::kBos));
    }
    std::string arguments(const std::string& name, const std::string& more) const {
        return " train --config " + tiny_62 + " --run-dir " + (folder_ / name).string() +
               " --set data.train=" + (folder_ / "train.bin").string() +
               " --set data.val=" + (folder_ / "val.bin").string() +
               " --set runtime.threads=1 --set data.rows=4 " + more;
    }
    TrainingRun run(int ranks, const std::string& name, const std::string& more,
                    const std::string& program = SPEEDRUN_EXECUTABLE) const {
        const JobResult job = mpirun(ranks, program + arguments(name, more), 240);
        EXPECT_EQ(job.exit_code, 0) << job.output;
        return read(name);
    }
    Config config(bool rows) const {
        std::vector<std::string> overrides{"data.train=" + (folder_ / "train.bin").string(),
                                           "data.val=" + (folder_ / "val.bin").string(), "data.rows=4"};
        if (rows) overrides.push_back("optimizer.params.bigram_embed.comm=sharded_sparse");
        return load_config(tiny_62, overrides);
    }
    int64_t bytes_of_rows(int64_t rank, int64_t ranks) const;
};

// What the rows of a whole run cost one rank, by its tokens: counts, and each row of others that it has
// looked up since Adam's last step, with its index.
int64_t RowGradients::bytes_of_rows(int64_t rank, int64_t ranks) const {
    const Config run = config(true);
    const Bigram& bigram = *run.model.input.bigram;
    const std::vector<int64_t> shape = run.model.param(bigram.table).shape;
    const int64_t own = (shape[0] + ranks - 1) / ranks, row_bytes = shape[1] * 4 + 4;
    TrainLoader loader({folder_ / "train.bin"}, data_layout(run.data), {rank, ranks});
    int64_t bytes = 0;
    std::set<int32_t> looked_up;
    std::vector<int32_t> rows;
    for (int64_t step = 0; step < run.schedule.total_steps(); ++step) {
        const StepSettings settings = settings_at(run, step);
        for (const Batch& batch : loader.next_step(step_shape(run.data, settings))) {
            bigram_rows(bigram, shape[0], batch.inputs, rows);
            looked_up.insert(rows.begin(), rows.end());
        }
        if (!settings.adam_steps) continue;
        bytes += 8 * (ranks - 1) +
                 row_bytes * std::ranges::count_if(looked_up, [&](int32_t row) { return row / own != rank; });
        looked_up.clear();
    }
    return bytes;
}

TEST_F(RowGradients, AreTheBitsOfWholeOnesAndFewerBytes) {
    constexpr int ranks = 4;
    const TrainingRun whole = run(ranks, "whole", ""), rows = run(ranks, "rows", by_rows);
    ASSERT_EQ(whole.train_losses.size(), 13U);
    expect_same_bits(whole, rows);
    const std::string said = "bigram_embed: ranks send each other the gradients of the rows";
    EXPECT_NE(rows.log.find(said), std::string::npos) << rows.log;
    EXPECT_EQ(whole.log.find(said), std::string::npos);

    const Config dense = config(false), sparse = config(true);
    const Ownership ownership = plan_ownership(dense, ranks);
    const auto traffic = bucket_traffic(dense, compile(dense), ownership);
    const auto bucket = static_cast<size_t>(
        std::ranges::find(ownership.buckets, "bigram_embed", &Bucket::name) - ownership.buckets.begin());
    const int64_t steps = 13, of_adam = 6;
    ASSERT_EQ(rows.sent_bytes.size(), static_cast<size_t>(ranks));
    for (int64_t rank = 0; rank < ranks; ++rank) {
        const auto r = static_cast<size_t>(rank);
        const int64_t planned = run_sent(dense, compile(dense), ownership, rank);
        EXPECT_EQ(whole.sent_bytes[r], planned / steps);
        EXPECT_EQ(rows.sent_bytes[r],
                  (planned - of_adam * traffic[bucket].reduce_sent[r] + bytes_of_rows(rank, ranks)) / steps);
        EXPECT_LE(rows.sent_bytes[r],
                  run_sent(sparse, compile(sparse), plan_ownership(sparse, ranks), rank) / steps);
        std::printf("rank %ld of %d: %ld bytes a step instead of %ld\n", rank, ranks, rows.sent_bytes[r],
                    whole.sent_bytes[r]);
    }
}

// Rows of the step before the cut still go to their owners after it, where rank 0 has the gradients of all of
// them too.
TEST_F(RowGradients, ThatWaitForAdamOutliveACut) {
    const TrainingRun whole = run(2, "whole", by_rows + saving);
    run(2, "cut", by_rows + eleven_steps);
    const auto from = folder_ / "cut/checkpoints/step_00000011";
    ASSERT_TRUE(std::filesystem::exists(from / "gradients_1.safetensors"));
    const std::string go_on = saving + "--accept-changes --resume " + from.string() + " ";
    const TrainingRun rest = run(2, "rest", by_rows + go_on);
    EXPECT_TRUE(std::ranges::equal(rest.train_losses, std::span(whole.train_losses).subspan(11)));
    EXPECT_TRUE(contents(rest.weights) == contents(whole.weights));
    const TrainingRun on_four = run(4, "rows_on_four", by_rows + go_on);
    EXPECT_EQ(on_four.train_losses.size(), 2U);
    expect_same_bits(on_four, run(4, "whole_on_four", go_on));
}

TEST_F(RowGradients, GoTheSameWayBesideReductionsThatStartEarly) {
    const std::string early =
        by_rows + "--set optimizer.comm.launch=on_grad_ready --set runtime.warmup_steps=3 ";
    expect_same_bits(run(2, "early", early), run(2, "late", by_rows));
}

// Four steps of two rows, a stage each, two of them Adam's.
std::string four_short_steps() {
    std::string words =
        "--set data.rows=2 --set data.val_tokens=640 --set schedule.scheduled_steps=3 "
        "--set schedule.extension_steps=1 --set schedule.untie_after_step=1 ";
    for (const char* stage : {"0", "1", "2", "3"})
        words += fmt::format(
            "--set schedule.stages[{0}].start={0} --set schedule.stages[{0}].batch_tokens=256 ", stage);
    return words;
}

// Through the communicator of GPUs; NCCL's stand-in adds up as the CPU's does.
TEST_F(RowGradients, AreTheBitsOfWholeOnesOnFakeGpus) {
    if (!std::filesystem::exists(SPEEDRUN_FAKE_GPU)) GTEST_SKIP() << "built without MPI";
    const std::string program = std::string("env FAKE_GPUS=2 ") + SPEEDRUN_FAKE_GPU,
                      device = four_short_steps() + "--set runtime.device=cuda ";
    const TrainingRun rows = run(2, "rows", by_rows + device, program);
    EXPECT_EQ(rows.train_losses.size(), 4U);
    expect_same_bits(rows, run(2, "whole", device, program));
}

}  // namespace
}  // namespace speedrun
