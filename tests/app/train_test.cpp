// train and eval as a user runs them, on the tiny golden model.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "app/cli.h"
#include "data/shard.h"
#include "record/log/run_log.h"
#include "support/file_text.h"
#include "support/golden_inputs.h"
#include "support/outcome.h"
#include "support/temporary_folder.h"
#include "util/safetensors.h"
#include "util/sha256.h"

namespace speedrun {
namespace {

class TrainVerb : public ::testing::Test {
  protected:
    TrainVerb() {
        write_shard(folder_ / "train_1.bin", golden::train_tokens_1());
        write_shard(folder_ / "val_0.bin", golden::val_tokens());
    }

    Outcome speedrun(const std::vector<std::string>& args) const { return captured(args, run_program); }

    // Three steps of 512 tokens, one of them Adam's, unless `more` says otherwise.
    Outcome train(const std::string& run, const std::vector<std::string>& more = {}) const {
        std::vector<std::string> args{"train",
                                      "--config",
                                      SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json",
                                      "--run-dir",
                                      folder_ / run,
                                      "--set",
                                      "data.train=" + (folder_ / "train_*.bin").string(),
                                      "--set",
                                      "data.val=" + (folder_ / "val_*.bin").string(),
                                      "--set",
                                      "schedule.scheduled_steps=2",
                                      "--set",
                                      "schedule.extension_steps=1",
                                      "--set",
                                      "data.rows=2"};
        for (int stage = 0; stage < 4; ++stage) {
            args.emplace_back("--set");
            args.push_back("schedule.stages[" + std::to_string(stage) + "].batch_tokens=512");
        }
        args.insert(args.end(), more.begin(), more.end());
        return speedrun(args);
    }

    bool exists(const std::string& name) const { return std::filesystem::exists(folder_ / name); }

    TemporaryFolder folder_;
};

// A vocabulary that no machine holds: terabytes, of which nothing is taken.
TEST_F(TrainVerb, SaysThatMemoryIsTooLittleBeforeItTakesAny) {
    const Outcome outcome = train("large", {"--set", "model.vocab_size=1073741824"});
    EXPECT_EQ(outcome.exit_code, 2);
    for (const char* part : {"error: too little memory on ", "the run needs ", " are free. ",
                             "No data.rows would fit", "runtime.memory_check=false"})
        EXPECT_NE(outcome.err.find(part), std::string::npos) << part << " not in " << outcome.err;
    EXPECT_FALSE(exists("large"));
}

TEST_F(TrainVerb, LeavesLogMetricsCurveConfigAndWeights) {
    const Outcome outcome = train("run");
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const std::string log = contents(folder_ / "run/log.txt");
    for (const char* part :
         {"step:0/3 val_loss:6.2383", "step:1/3 train_time:", "step:3/3 val_loss:", "peak memory allocated:",
          "\ncommit: ", "\nMKL: ", "train_1.bin, ", "val_0.bin, "})
        EXPECT_NE(log.find(part), std::string::npos) << part << " not in\n" << log;
    EXPECT_NE(contents(folder_ / "run/metrics.jsonl").find("\"train_loss\":"), std::string::npos);
    EXPECT_NE(contents(folder_ / "run/loss.svg").find("<svg"), std::string::npos);

    const Outcome eval = speedrun({"eval", "--run-dir", folder_ / "run"});
    ASSERT_EQ(eval.exit_code, 0) << eval.err;
    const auto at = log.find("step:3/3 val_loss:") + 18;
    EXPECT_EQ(eval.out.substr(0, 9), "val_loss:");
    EXPECT_NEAR(std::stod(eval.out.substr(9)), std::stod(log.substr(at)), 5e-5);  // the log has four decimals
}

TEST_F(TrainVerb, LogHoldsTheChecksumsOfTheShardsThatWereRead) {
    const Outcome outcome = train("run", {"--set", "runtime.seed=77"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const RunLog log = read_run_log(folder_ / "run/log.txt");
    ASSERT_EQ(log.runs.size(), 1U);
    EXPECT_EQ(log.unplaced_count, 0);
    const auto& run = log.runs.front();
    EXPECT_TRUE(run.complete()) << run.incomplete_reason();
    EXPECT_EQ(run.seed, 77U);
    EXPECT_EQ(run.header.field("world size"), "1");
    EXPECT_TRUE(run.header.started.has_value());
    const auto shard = [&](DataShard::Use use, const char* name) {
        const std::filesystem::path path = folder_ / name;
        return DataShard{use, path.string(), std::filesystem::file_size(path), sha256_file(path)};
    };
    EXPECT_EQ(run.data, (std::vector{shard(DataShard::Use::training, "train_1.bin"),
                                     shard(DataShard::Use::validation, "val_0.bin")}));
}

TEST_F(TrainVerb, SameConfigSameBitsAndWarmUpLeavesNoTrace) {
    ASSERT_EQ(train("a").exit_code, 0);
    ASSERT_EQ(train("b").exit_code, 0);
    ASSERT_EQ(train("warm", {"--set", "runtime.warmup_steps=5"}).exit_code, 0);
    const std::string weights = contents(folder_ / "a/weights.safetensors");
    EXPECT_EQ(weights, contents(folder_ / "b/weights.safetensors"));
    EXPECT_EQ(weights, contents(folder_ / "warm/weights.safetensors"));
}

TEST_F(TrainVerb, ARunDirectoryIsNotUsedTwice) {
    ASSERT_EQ(train("run").exit_code, 0);
    const std::string log = contents(folder_ / "run/log.txt");
    EXPECT_EQ(train("run").exit_code, 2);
    EXPECT_EQ(contents(folder_ / "run/log.txt"), log);
    EXPECT_EQ(train("run", {"--overwrite"}).exit_code, 0);
}

TEST_F(TrainVerb, StartsFromGivenWeights) {
    ASSERT_EQ(train("first").exit_code, 0);
    const Outcome second = train("second", {"--init", folder_ / "first/weights.safetensors"});
    ASSERT_EQ(second.exit_code, 0) << second.err;
    // the first window is not the last one, so the loss is near and not equal
    const std::string log = contents(folder_ / "second/log.txt");
    const auto start = std::stod(log.substr(log.find("step:0/3 val_loss:") + 18));
    EXPECT_LT(start, 6.0) << "untrained weights have 6.2 nats";
}

TEST_F(TrainVerb, TooLittleDataIsSaidBeforeAnythingIsWritten) {
    const Outcome outcome = train("run", {"--set", "schedule.scheduled_steps=900"});
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_NE(outcome.err.find("901"), std::string::npos) << outcome.err;  // steps needed
    EXPECT_FALSE(exists("run"));
}

TEST_F(TrainVerb, NonFiniteLossStopsWithTheStep) {
    auto parameters = golden::init_params();
    parameters.back().values[5] = std::numeric_limits<float>::quiet_NaN();
    std::vector<SafeTensor> tensors;
    for (const auto& p : parameters)
        tensors.push_back({p.name, "F32", p.shape, std::as_bytes(std::span(p.values))});
    write_safetensors(folder_ / "nan.safetensors", tensors);
    const Outcome outcome = train("run", {"--init", folder_ / "nan.safetensors"});
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_NE(outcome.err.find("training loss of step 1 is"), std::string::npos) << outcome.err;
    EXPECT_TRUE(exists("run/log.txt"));
}

TEST_F(TrainVerb, DiagnosticsOnRequest) {
    ASSERT_EQ(train("run", {"--diagnostics", "2"}).exit_code, 0);
    const std::string metrics = contents(folder_ / "run/metrics.jsonl");
    for (const char* part : {"\"rms/blocks.1.", "\"update_rms/", "\"condition/"})
        EXPECT_NE(metrics.find(part), std::string::npos) << part;
}

TEST_F(TrainVerb, BadInputIsAUserErrorAndChangesNothing) {
    const std::vector<std::vector<std::string>> mistakes{
        {"--set", "data.train=" + (folder_ / "nothing_*.bin").string()},
        {"--set", "schedule.sheduled_steps=3"},
        {"--init", folder_ / "train_1.bin"},
        {"--init", folder_ / "absent.safetensors"},
        {"--set", "runtime.device=cuda"},
        {"--diagnostics", "-1"},
        {"--unknown"},
        {"stray"},
    };
    for (const auto& mistake : mistakes) {
        const Outcome outcome = train("run", mistake);
        EXPECT_EQ(outcome.exit_code, 2) << mistake.back() << outcome.err;
        EXPECT_NE(outcome.err.find("error"), std::string::npos) << mistake.back();
        EXPECT_FALSE(exists("run")) << mistake.back();
    }
    EXPECT_EQ(speedrun({"train"}).exit_code, 2);
    EXPECT_EQ(speedrun({"eval"}).exit_code, 2);
    EXPECT_EQ(speedrun({"generate", "--run-dir", folder_ / "absent"}).exit_code, 2);
    EXPECT_EQ(speedrun({"bench", "nothing"}).exit_code, 2);
}

// A machine with a driver (any library by its name does) and a build without kernels (the executable stands
// alone).
TEST_F(TrainVerb, ADriverWithoutKernelsMeansTheCpu) {
    Dl_info library{};
    ASSERT_NE(::dladdr(reinterpret_cast<void*>(static_cast<double (*)(double)>(&std::cbrt)), &library), 0);
    std::filesystem::copy_file(std::filesystem::canonical(library.dli_fname), folder_ / "libcuda.so.1");
    std::filesystem::copy_file(SPEEDRUN_EXECUTABLE, folder_ / "speedrun");
    const std::string log = folder_ / "bench.log";
    const std::string command = "LD_LIBRARY_PATH=" + folder_.path().string() + " " +
                                (folder_ / "speedrun").string() +
                                " bench step --config " SPEEDRUN_SOURCE_DIR
                                "/tests/golden/golden_tiny.json --tokens 64 --steps 1"
                                " --set runtime.device=auto >" +
                                log + " 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << contents(log);
    EXPECT_NE(contents(log).find("no libspeedrun_cuda.so: running on the CPU"), std::string::npos)
        << contents(log);
}

TEST_F(TrainVerb, UnwritableRunDirectoryIsSaidBeforeTraining) {
    const Outcome outcome = train("train_1.bin/run");  // a file is in the way
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_EQ(outcome.out.find("step:"), std::string::npos);
}

}  // namespace
}  // namespace speedrun
