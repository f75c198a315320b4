// Plans against real runs on the CPU: bytes exactly, memory within 5 %.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/shard.h"
#include "model/load_config.h"
#include "plan/rank_memory.h"
#include "plan/traffic.h"
#include "support/golden_inputs.h"
#include "support/mpirun.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

using Json = nlohmann::json;

class PlannedRun : public ::testing::TestWithParam<int> {
  protected:
    PlannedRun() { at::set_num_threads(1); }  // as the ranks have
    void SetUp() override {
        if (!have_mpirun()) GTEST_SKIP() << "needs Open MPI's mpirun";
    }

    // What each rank found.
    std::vector<Json> run(const std::string& file, const std::vector<std::string>& overrides) const {
        std::string command = std::string(SPEEDRUN_BUILD_DIR) + "/plan_planned_run " + file;
        for (const std::string& text : overrides) command += " " + text;
        const JobResult job = mpirun(GetParam(), command, 240);
        EXPECT_EQ(job.exit_code, 0) << job.output;
        std::vector<Json> ranks(static_cast<size_t>(GetParam()));
        std::istringstream lines(job.output);
        for (std::string line; std::getline(lines, line);) {
            if (!line.starts_with('{')) continue;
            const Json found = Json::parse(line);
            ranks.at(found["rank"].get<size_t>()) = found;
        }
        return ranks;
    }

    // Memory: what processes of this kind add to themselves from before the model is made to their highest
    // point. Pages of files are left out on both sides - code of LibTorch that runs for the first time (15 MB
    // here, whatever the model), shards - because the kernel shares them among the ranks of a host and can
    // drop them; they are only ever added to, so that at the highest point there are no more of them than at
    // the end.
    void expect_as_planned(const std::string& file, const std::vector<std::string>& overrides) const {
        const Config config = load_config(file, overrides);
        const Ownership ownership = plan_ownership(config, GetParam());
        const auto memory = rank_memory(config, compile(config), ownership, Operators::cpu);
        const std::vector<Json> ranks = run(file, overrides);
        for (size_t rank = 0; rank < ranks.size(); ++rank) {
            SCOPED_TRACE("rank " + std::to_string(rank));
            const Json& found = ranks[rank];
            ASSERT_TRUE(found.contains("sent"));
            EXPECT_EQ(found["sent"],
                      run_sent(config, compile(config), ownership, static_cast<int64_t>(rank)));
            EXPECT_EQ(found["state"], memory[rank].optimizer_state);
            EXPECT_EQ(found["activations"], memory[rank].activations);
            const auto value = [&](const char* when, const char* what) {
                return found[when][what].get<double>();
            };
            const double measured = value("after", "VmHWM") - value("after", "RssFile") -
                                    value("after", "RssShmem") - value("before", "RssAnon");
            // Staging is there before the model is.
            const auto planned = static_cast<double>(memory[rank].peak() - memory[rank].communication);
            EXPECT_NEAR(planned / measured, 1, 0.05);
            std::printf("%s, rank %zu of %d: planned %.1f MB, measured %.1f MB (%+.1f %%)\n",
                        file.substr(file.rfind('/') + 1).c_str(), rank, GetParam(), planned / 1e6,
                        measured / 1e6, 100 * (planned / measured - 1));
        }
    }

    void write_shards(int64_t bos) {
        write_shard(folder_ / "train.bin", golden::make_tokens("train1", 50000, bos));
        write_shard(folder_ / "val.bin", golden::make_tokens("val", 10000, bos));
    }
    std::string data() const { return (folder_ / "train.bin").string(); }
    std::string val() const { return (folder_ / "val.bin").string(); }

    TemporaryFolder folder_;
};

TEST_P(PlannedRun, GoldenModel) {
    write_shards(golden::kBos);
    expect_as_planned(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json",
                      {"data.train=" + data(), "data.val=" + val(), "schedule.scheduled_steps=3",
                       "schedule.extension_steps=1"});
}

TEST_P(PlannedRun, Quickstart) {
    write_shards(50256);
    expect_as_planned(SPEEDRUN_SOURCE_DIR "/configs/quickstart.json",
                      {"data.train=" + data(), "data.val=" + val(), "data.val_tokens=4096", "data.rows=4",
                       "schedule.scheduled_steps=2", "schedule.extension_steps=1"});
}

INSTANTIATE_TEST_SUITE_P(Ranks, PlannedRun, ::testing::Values(1, 2, 4));

}  // namespace
}  // namespace speedrun
