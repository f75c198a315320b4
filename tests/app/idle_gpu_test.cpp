// Runs on the real LibTorch and the real modules for GPUs, over a GPU that does no arithmetic
// (tests/idle_gpu): what they ask of CUDA, and whether CUDA would allow it.
#include <gtest/gtest.h>

#include <cstdio>
#include <stdexcept>

#include "model/load_config.h"
#include "optim/ownership.h"
#include "plan/rank_memory.h"
#include "support/golden_runs.h"

#ifndef SPEEDRUN_IDLE_GPU
#define SPEEDRUN_IDLE_GPU ""
#endif
#ifndef SPEEDRUN_IDLE_NCCL
#define SPEEDRUN_IDLE_NCCL ""
#endif

namespace speedrun {
namespace {

// Four micro-batches a step, one of validation; stages of three steps, the last one as long as is wanted.
const std::string four_micro_batches =
    "--set data.rows=4 --set schedule.stages[0].batch_tokens=1024 --set schedule.stages[1].batch_tokens=1024 "
    "--set schedule.stages[2].batch_tokens=1024 --set schedule.stages[3].batch_tokens=1024 "
    "--set schedule.eval.every=1000 --set data.val_tokens=512 --set runtime.warmup_steps=16 "
    "--set numerics.activations=bf16 ";

// Once for each stage and each place of a batch, all of them in the warm-up: the graphs outlive validations.
void expect_recorded_once(const json& asked) {
    constexpr double stages = 4, places = 2, attention_layers = 10;
    double passes = 0;
    for (const auto& [kernel, count] : asked.at("recorded").items())
        if (kernel.find("flash_fwd_kernel") != std::string::npos)
            passes += count.get<double>() / attention_layers;
    EXPECT_EQ(passes, stages * places);
}

class IdleGpu : public GoldenRuns {
  protected:
    void SetUp() override {
        GoldenRuns::SetUp();
        if (std::string(SPEEDRUN_IDLE_GPU).empty()) GTEST_SKIP() << "built without CUDA's compiler";
    }

    // `command` on `ranks` idle GPUs; what each of its processes has asked of CUDA.
    std::vector<json> run(int ranks, const std::string& command) const {
        if (ranks > 1 && std::string(SPEEDRUN_IDLE_NCCL).empty())
            throw std::runtime_error("built without NCCL");
        const std::string report = (folder_ / "asked").string();
        const std::string environment =
            "env ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 LD_PRELOAD=" SPEEDRUN_IDLE_GPU +
            std::string(ranks > 1 ? ":" SPEEDRUN_IDLE_NCCL : "") + " IDLE_GPUS=" + std::to_string(ranks) +
            " IDLE_GPU_REPORT=" + report + " ";
        const JobResult job = mpirun(ranks, environment + command + " --set runtime.device=cuda ", 300);
        EXPECT_EQ(job.exit_code, 0) << job.output;
        std::vector<json> asked;
        for (int rank = 0; rank < ranks; ++rank) {
            asked.push_back(json::parse(contents(report + "." + std::to_string(rank))));
            EXPECT_EQ(asked.back().at("refused"), json::object()) << "rank " << rank;
            if (asked.back().at("graph_launches") > 0) expect_recorded_once(asked.back());
        }
        return asked;
    }
    // What one step asks for, by rank: the difference that ten more steps make.
    std::vector<json> step(int ranks, const std::string& more) const {
        const auto run_of = [&](int steps) {
            const std::string name = "run_" + std::to_string(steps) + "_" + std::to_string(runs_++);
            return run(ranks, command(name, four_micro_batches + more +
                                                "--set schedule.extension_steps=" + std::to_string(steps)));
        };
        const std::vector<json> shorter = run_of(5);
        std::vector<json> difference = run_of(15);
        for (size_t rank = 0; rank < difference.size(); ++rank) subtract(difference[rank], shorter[rank]);
        return difference;
    }

  private:
    // Numbers and numbers by name, a tenth of each; none that are 0 by name.
    static void subtract(json& from, const json& what) {
        for (auto& [name, value] : from.items()) {
            if (!value.is_object()) {
                value = (value.get<double>() - what.at(name).get<double>()) / 10;
                continue;
            }
            json left = json::object();
            for (const auto& [key, count] : value.items())
                if (const double more = count.get<double>() - what.at(name).value(key, 0.0); more != 0)
                    left[key] = more / 10;
            value = std::move(left);
        }
    }
    mutable int runs_ = 0;
};

double sum_but(const json& counts, const std::string& left_out) {
    double sum = 0;
    for (const auto& [name, count] : counts.items())
        if (name != left_out) sum += count.get<double>();
    return sum;
}

void expect_nothing_pageable(const json& asked) {
    for (const auto& [way, count] : asked.at("copies").items())
        EXPECT_EQ(way.find("pageable"), std::string::npos) << count << " copies " << way;
}

// A graph for each micro-batch and each bucket's update. The host waits for the losses; and before it writes
// to a place of the next batch, or of the numbers of a step, for the copy that read it one or two turns ago.
void expect_graphs_only(const json& asked) {
    EXPECT_EQ(asked.at("kernels"), json::object());
    EXPECT_EQ(asked.at("graph_launches"), 4 + 7);
    EXPECT_EQ(asked.at("waits"), json({{"cudaStreamSynchronize", 1.0}, {"cudaEventSynchronize", 5.0}}));
    EXPECT_EQ(asked.at("device_allocations"), 0);
    EXPECT_EQ(asked.at("host_allocations"), 0);
    expect_nothing_pageable(asked);
}

TEST_F(IdleGpu, AStepIsGraphsAndSmallCopies) {
    const json asked = step(1, "").front();
    expect_graphs_only(asked);
    // without graphs: the same kernels one by one
    const json one_by_one = step(1, "--set runtime.cuda_graphs=false ").front();
    EXPECT_EQ(one_by_one.at("graph_launches"), 0);
    EXPECT_EQ(sum_but(one_by_one.at("kernels"), "memset"), asked.at("graph_kernels"));
    EXPECT_EQ(one_by_one.at("waits").at("cudaStreamSynchronize"), 1);
    EXPECT_EQ(one_by_one.at("device_allocations"), 0);
    // Gradients add up in the kernels that make them: ATen adds none in fp32.
    double additions = 0;
    for (const auto& [name, count] : one_by_one.at("kernels").items())
        if (name.find("CUDAFunctor_addIfE") != std::string::npos) additions += count.get<double>();
    EXPECT_EQ(additions, 0);
}

TEST_F(IdleGpu, SoIsOneWithAHeadIn8Bits) {
    const json asked = step(1, "--set numerics.lm_head.format=fp8 ").front();
    expect_graphs_only(asked);
}

// On two GPUs: beside the graphs collectives and what clears gradients, or adds them up before they are on
// their way.
TEST_F(IdleGpu, RanksWaitOnceAStep) {
    if (std::string(SPEEDRUN_IDLE_NCCL).empty()) GTEST_SKIP() << "built without NCCL";
    for (const std::string launch : {"", "--set optimizer.comm.launch=on_grad_ready "}) {
        SCOPED_TRACE(launch);
        for (const json& asked : step(2, launch)) {
            EXPECT_EQ(asked.at("waits"),
                      json({{"cudaStreamSynchronize", 1.0}, {"cudaEventSynchronize", 3.0}}));
            EXPECT_EQ(asked.at("device_allocations"), 0);
            EXPECT_EQ(asked.at("host_allocations"), 0);
            expect_nothing_pageable(asked);
            double collectives = 0;
            for (const auto& [name, count] : asked.at("kernels").items()) {
                for (const char* in_graphs : {"speedrun", "cublas", "flash"})
                    EXPECT_EQ(name.find(in_graphs), std::string::npos) << name;
                if (name.starts_with("nccl")) collectives += count.get<double>();
            }
            EXPECT_GT(collectives, 7);
        }
    }
}

int64_t mebibytes_behind(const std::string& text, const std::string& words) {
    const size_t at = text.find(words);
    return at == std::string::npos ? -1 : std::stoll(text.substr(at + words.size()));
}

// All of the optimizer's state on one GPU, validations of 262,144 tokens at a time, graphs of all stages.
// What the plan says, and is compared with what is free, is what tensors are given.
TEST_F(IdleGpu, Record43FitsIn29GiB) {
    std::vector<uint16_t> tokens(1'400'000);
    for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = i % 700 == 0 ? 50256 : static_cast<uint16_t>(i % 50000);
    for (const char* shard : {"train_big.bin", "val_big.bin"}) write_shard(folder_ / shard, tokens);
    std::vector<std::string> settings{"data.train=" + (folder_ / "train_big.bin").string(),
                                      "data.val=" + (folder_ / "val_big.bin").string(),
                                      "data.val_tokens=262144", "schedule.scheduled_steps=3",
                                      "schedule.extension_steps=1"};
    for (const std::string stage : {"0", "1", "2", "3"}) {
        settings.push_back("schedule.stages[" + stage + "].batch_tokens=32768");
        settings.push_back("schedule.stages[" + stage + "].start=" + stage);
    }
    const std::string record = SPEEDRUN_SOURCE_DIR "/configs/record_43.json";
    std::string command =
        SPEEDRUN_EXECUTABLE " train --config " + record + " --run-dir " + (folder_ / "record").string();
    for (const std::string& setting : settings) command += " --set " + setting;
    const json asked = run(1, command).front();
    // the weights to the GPU and back, and no tables of the rotary embedding
    EXPECT_LT(asked.at("pageable_bytes"), int64_t{1200} << 20);

    const std::string log = contents(folder_ / "record/log.txt");
    const int64_t allocated = mebibytes_behind(log, "peak memory allocated: ");
    const int64_t reserved = mebibytes_behind(log, " MiB reserved: ");
    EXPECT_LT(reserved, 29 * 1024);
    const Config config = load_config(record, settings);
    const int64_t planned =
        rank_memory(config, compile(config), plan_ownership(config, 1), Operators::gpu).front().peak() >> 20;
    EXPECT_LE(allocated, planned);
    EXPECT_GT(allocated, planned * 8 / 10);
    std::printf("MiB: planned %ld, allocated %ld, reserved %ld\n", planned, allocated, reserved);
}

}  // namespace
}  // namespace speedrun
