#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "data/shard.h"
#include "support/file_text.h"
#include "support/golden_match.h"
#include "support/mpirun.h"
#include "support/temporary_folder.h"

namespace speedrun {

inline const std::string golden_config = SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json";
inline const std::string record_config = SPEEDRUN_SOURCE_DIR "/configs/record_43.json";

// Steps of as many rows of 256 tokens instead of the golden run's 8, for runs that are compared with each
// other.
inline std::string rows_a_step(int64_t rows) {
    std::string words = "--set data.rows=" + std::to_string(rows) + " ";
    for (int stage = 0; stage < 4; ++stage)
        words += "--set schedule.stages[" + std::to_string(stage) +
                 "].batch_tokens=" + std::to_string(256 * rows) + " ";
    return words;
}

struct TrainingRun {
    std::vector<double> train_losses, val_losses;
    std::vector<int64_t> state_bytes, sent_bytes;  // of each rank; empty for one
    std::filesystem::path weights;
    std::string log;
};

inline void expect_same_bits(const TrainingRun& a, const TrainingRun& b) {
    EXPECT_EQ(a.train_losses, b.train_losses);
    EXPECT_EQ(a.val_losses, b.val_losses);
    EXPECT_TRUE(contents(a.weights) == contents(b.weights));
}

// The numbers behind `word` in lines that begin with "rank".
inline std::vector<int64_t> rank_numbers(const std::string& log, const std::string& word) {
    std::vector<int64_t> numbers;
    std::istringstream lines(log);
    for (std::string line; std::getline(lines, line);)
        if (const size_t at = line.find(word); line.starts_with("rank ") && at != std::string::npos)
            numbers.push_back(std::stoll(line.substr(at + word.size())));
    return numbers;
}

// The golden run as a user starts it: `mpirun -n W speedrun train`.
class GoldenRuns : public ::testing::Test {
  protected:
    GoldenRuns() {
        write_shard(folder_ / "train_1.bin", golden::train_tokens_1());
        write_shard(folder_ / "val_0.bin", golden::val_tokens());
        write_initial_weights(folder_ / "init.safetensors");
    }
    void SetUp() override {
        if (!have_mpirun()) GTEST_SKIP() << "needs Open MPI's mpirun";
    }

    std::string command(const std::string& name, const std::string& more) const {
        return std::string(SPEEDRUN_EXECUTABLE) + " train --config " + golden_config + " --init " +
               (folder_ / "init.safetensors").string() + " --run-dir " + (folder_ / name).string() +
               " --set data.train=" + (folder_ / "train_1.bin").string() +
               " --set data.val=" + (folder_ / "val_0.bin").string() + " --set runtime.threads=1 " +
               settings_ + more;
    }
    JobResult start(int ranks, const std::string& name, const std::string& more) const {
        return mpirun(ranks, command(name, more), 120);
    }

    TrainingRun train(int ranks, const std::string& name, const std::string& more = "") const {
        const JobResult job = start(ranks, name, more);
        EXPECT_EQ(job.exit_code, 0) << job.output;
        return read(name);
    }
    // What the run in that folder has left.
    TrainingRun read(const std::string& name) const {
        TrainingRun run;
        std::ifstream metrics(folder_ / name / "metrics.jsonl");
        for (std::string line; std::getline(metrics, line);) {
            const json values = json::parse(line);
            if (values.contains("train_loss")) run.train_losses.push_back(values["train_loss"]);
            if (values.contains("val_loss")) run.val_losses.push_back(values["val_loss"]);
        }
        run.weights = folder_ / name / "weights.safetensors";
        run.log = contents(folder_ / name / "log.txt");
        run.state_bytes = rank_numbers(run.log, "optimizer state ");
        run.sent_bytes = rank_numbers(run.log, "sent ");
        return run;
    }

    // How many steps the run has written to its metrics.
    int64_t steps_done(const std::string& name) const {
        const std::string metrics = contents(folder_ / name / "metrics.jsonl");
        int64_t steps = 0;
        for (size_t at = 0; (at = metrics.find("train_loss", at)) != std::string::npos; ++at) ++steps;
        return steps;
    }

    std::string settings_;  // of every run
    TemporaryFolder folder_;
};

}  // namespace speedrun
