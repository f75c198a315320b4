// Runs with runtime.device=cuda on GPUs made of the host's memory (tests/fake_gpu): everything between a
// config and its checkpoints as on real ones, but for what NVIDIA's libraries do. Tensors of the host among
// those of a GPU are refused there; new memory is full of NaNs.
#include <gtest/gtest.h>

#include <filesystem>

#include "support/golden_runs.h"

namespace speedrun {
namespace {

// Four steps of two micro-batches, a stage each.
const std::string four_stages =
    "--set schedule.scheduled_steps=3 --set schedule.extension_steps=1 --set data.val_tokens=512 "
    "--set schedule.stages[0].batch_tokens=512 --set schedule.stages[1].batch_tokens=512 "
    "--set schedule.stages[2].batch_tokens=512 --set schedule.stages[3].batch_tokens=512 "
    "--set schedule.stages[1].start=1 --set schedule.stages[2].start=2 --set schedule.stages[3].start=3 "
    "--set optimizer.matrix.momentum.warmup_steps=2 --set optimizer.matrix.momentum.cooldown_steps=1 ";
const std::string bf16 = four_stages + "--set numerics.activations=bf16 ";

class FakeGpu : public GoldenRuns {
  protected:
    void SetUp() override {
        GoldenRuns::SetUp();
        if (!std::filesystem::exists(SPEEDRUN_FAKE_GPU)) GTEST_SKIP() << "built without MPI";
    }
    TrainingRun train_on_gpus(int ranks, const std::string& name, const std::string& more) const {
        const std::string words = command(name, more + "--set runtime.device=cuda ");
        const std::string there = SPEEDRUN_FAKE_GPU + words.substr(words.find(' '));
        const JobResult job = mpirun(ranks, "env FAKE_GPUS=" + std::to_string(ranks) + " " + there, 300);
        EXPECT_EQ(job.exit_code, 0) << job.output;
        return read(name);
    }
};

void expect_near(const TrainingRun& a, const TrainingRun& b, double nats) {
    ASSERT_EQ(a.train_losses.size(), b.train_losses.size());
    ASSERT_EQ(a.val_losses.size(), b.val_losses.size());
    for (size_t i = 0; i < a.train_losses.size(); ++i)
        EXPECT_NEAR(a.train_losses[i], b.train_losses[i], nats);
    for (size_t i = 0; i < a.val_losses.size(); ++i) EXPECT_NEAR(a.val_losses[i], b.val_losses[i], nats);
}

// Recorded in the warm-up, launched from then on. Within 3.2e-3 of the CPU where it was measured: both round
// to bf16, at other places.
TEST_F(FakeGpu, Bf16FromGraphsIsTheCpusRun) {
    const TrainingRun on_gpu =
        train_on_gpus(1, "gpu", bf16 + "--set runtime.warmup_steps=4 --diagnostics 2 ");
    EXPECT_EQ(on_gpu.train_losses.size(), 4U);
    expect_near(on_gpu, train(1, "cpu", bf16), 1e-2);
}

TEST_F(FakeGpu, Fp8HeadTrains) {
    const TrainingRun on_gpu =
        train_on_gpus(1, "gpu", bf16 + "--set numerics.lm_head.format=fp8 --set runtime.cuda_graphs=false ");
    expect_near(on_gpu, train(1, "cpu", bf16), 2e-2);
}

// Two ranks, each on its GPU, with a checkpoint; and the second half again from there.
TEST_F(FakeGpu, TwoRanksTrainSaveAndResume) {
    const std::string saving = four_stages + "--set runtime.checkpoint.every_steps=1 ";
    const TrainingRun whole = train_on_gpus(2, "gpu", saving);
    expect_near(whole, train(2, "cpu", four_stages), 1e-4);
    EXPECT_EQ(whole.sent_bytes.size(), 2U);
    const TrainingRun rest =
        train_on_gpus(2, "rest",
                      saving + "--set optimizer.comm.launch=on_grad_ready --accept-changes --resume " +
                          (folder_ / "gpu/checkpoints/step_00000002").string() + " ");
    ASSERT_EQ(rest.train_losses.size(), 2U);
    EXPECT_TRUE(
        std::equal(rest.train_losses.begin(), rest.train_losses.end(), whole.train_losses.begin() + 2));
    EXPECT_TRUE(contents(rest.weights) == contents(whole.weights));
}

}  // namespace
}  // namespace speedrun
