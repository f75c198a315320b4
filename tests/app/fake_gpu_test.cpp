// Runs with runtime.device=cuda on GPUs made of the host's memory (tests/fake_gpu): everything between a
// config and its checkpoints as on real ones, but for what NVIDIA's libraries do. Tensors of the host among
// those of a GPU are refused there; new memory is full of NaNs.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <regex>

#include "support/golden_runs.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

// Four steps of two micro-batches, a stage each.
const std::string four_stages =
    "--set schedule.scheduled_steps=3 --set schedule.extension_steps=1 --set data.val_tokens=512 --set "
    "data.rows=2 "
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
    // `gpus`: what each rank is shown, "FAKE_GPUS=2 FAKE_GPU_MIB=100".
    JobResult start_on_gpus(int ranks, const std::string& gpus, const std::string& name,
                            const std::string& more) const {
        const std::string words = command(name, more + "--set runtime.device=cuda ");
        return mpirun(ranks, "env " + gpus + " " + SPEEDRUN_FAKE_GPU + words.substr(words.find(' ')), 300);
    }
    TrainingRun train_on_gpus(int ranks, const std::string& gpus, const std::string& name,
                              const std::string& more) const {
        const JobResult job = start_on_gpus(ranks, gpus, name, more);
        EXPECT_EQ(job.exit_code, 0) << job.output;
        return read(name);
    }
    // Where it should end before it has begun; what it says.
    std::string refused(int ranks, const std::string& gpus, const std::string& more) const {
        const JobResult job = start_on_gpus(ranks, gpus, "refused", more);
        EXPECT_EQ(job.exit_code, kUserError) << job.output;
        EXPECT_FALSE(std::filesystem::exists(folder_ / "refused"));
        return job.output;
    }
};

void expect_near(const TrainingRun& a, const TrainingRun& b, double nats) {
    ASSERT_EQ(a.train_losses.size(), b.train_losses.size());
    ASSERT_EQ(a.val_losses.size(), b.val_losses.size());
    for (size_t i = 0; i < a.train_losses.size(); ++i)
        EXPECT_NEAR(a.train_losses[i], b.train_losses[i], nats);
    for (size_t i = 0; i < a.val_losses.size(); ++i) EXPECT_NEAR(a.val_losses[i], b.val_losses[i], nats);
}

// Recorded in the warm-up, launched from then on. Both round to bf16, at other places: 3.2e-3 apart where it
// was measured.
TEST_F(FakeGpu, Bf16FromGraphsIsTheCpusRun) {
    const TrainingRun on_gpu =
        train_on_gpus(1, "FAKE_GPUS=1", "gpu", bf16 + "--set runtime.warmup_steps=4 --diagnostics 2 ");
    EXPECT_EQ(on_gpu.train_losses.size(), 4U);
    expect_near(on_gpu, train(1, "cpu", bf16), 1e-2);
}

// 3.7e-3 from the CPU's bf16 where it was measured.
TEST_F(FakeGpu, Fp8HeadTrains) {
    const TrainingRun on_gpu = train_on_gpus(
        1, "FAKE_GPUS=1", "gpu", bf16 + "--set numerics.lm_head.format=fp8 --set runtime.cuda_graphs=false ");
    expect_near(on_gpu, train(1, "cpu", bf16), 1e-2);
}

// Through the GPU's kernels and products of bytes, from graphs, against the CPU's roundings; 2.8e-3 apart
// where it was measured.
TEST_F(FakeGpu, Fp8MlpsTrain) {
    std::string half = "--set data.rows=4 ";  // rows a step
    for (const char* stage : {"0", "1", "2", "3"})
        half += std::string("--set schedule.stages[") + stage + "].batch_tokens=256 ";
    const std::string fp8 =
        bf16 + half + "--set numerics.mlp.up.format=fp8 --set numerics.mlp.down.format=fp8 " +
        "--set numerics.mlp.down.exact_weight_steps=2 " + "--set numerics.mlp.save_for_backward=post ";
    const TrainingRun on_gpu = train_on_gpus(1, "FAKE_GPUS=1", "gpu", fp8 + "--set runtime.warmup_steps=2 ");
    expect_near(on_gpu, train(1, "cpu", fp8), 6e-3);
}

// Two ranks, each on its GPU, with checkpoints; and the second half again from there.
TEST_F(FakeGpu, TwoRanksTrainSaveAndResume) {
    const std::string saving = four_stages + "--set runtime.checkpoint.every_steps=1 ";
    const TrainingRun whole = train_on_gpus(2, "FAKE_GPUS=2", "gpu", saving);
    const TrainingRun on_cpu = train(2, "cpu", four_stages);
    expect_near(whole, on_cpu, 1e-4);
    ASSERT_EQ(whole.sent_bytes.size(), 2U);
    ASSERT_EQ(on_cpu.sent_bytes.size(), 2U);
    for (size_t rank = 0; rank < 2; ++rank)  // NCCL's all_reduce of the validations' losses is another one
        EXPECT_NEAR(static_cast<double>(whole.sent_bytes[rank]), static_cast<double>(on_cpu.sent_bytes[rank]),
                    100);
    // Of the GPU, not of the process. Rank 0's is that of the products that it takes the GPU's speed by.
    const auto peaks = rank_numbers(whole.log, "peak memory ");
    const auto of_processes = rank_numbers(on_cpu.log, "peak memory ");
    ASSERT_EQ(peaks.size(), 2U);
    EXPECT_GT(peaks[1], 0);
    EXPECT_LT(peaks[1], of_processes.at(1));
    const TrainingRun rest =
        train_on_gpus(2, "FAKE_GPUS=2", "rest",
                      saving + "--set optimizer.comm.launch=on_grad_ready --accept-changes --resume " +
                          (folder_ / "gpu/checkpoints/step_00000002").string() + " ");
    ASSERT_EQ(rest.train_losses.size(), 2U);
    EXPECT_TRUE(
        std::equal(rest.train_losses.begin(), rest.train_losses.end(), whole.train_losses.begin() + 2));
    EXPECT_TRUE(contents(rest.weights) == contents(whole.weights));
}

// Ranks that are shown a GPU each, as Slurm does: each has number 0, and they do not share its memory.
TEST_F(FakeGpu, WhatIsFreeOfEachGpuDecides) {
    const std::string said = refused(2, "FAKE_GPUS=1 FAKE_GPU_MIB=1", four_stages);
    std::smatch found;
    ASSERT_TRUE(std::regex_search(
        said, found,
        std::regex(R"(too little memory on cuda:0 of \S+, rank 0: the run needs (\d+) MiB, 1 MiB are free)")))
        << said;
    train_on_gpus(2, "FAKE_GPUS=1 FAKE_GPU_MIB=" + found[1].str(), "fits", four_stages);
}

TEST_F(FakeGpu, ARankWithoutOneSaysSo) {
    EXPECT_NE(refused(1, "FAKE_GPUS=0", "").find("runtime.device: rank 0 finds 0 GPUs on its host"),
              std::string::npos);
    const std::string said = refused(3, "FAKE_GPUS=2", "");
    EXPECT_NE(said.find("rank 2 is number 2 of 3 on its host, which shows it 2 GPUs"), std::string::npos)
        << said;
}

}  // namespace
}  // namespace speedrun
