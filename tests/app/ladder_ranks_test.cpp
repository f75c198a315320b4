// The ladder's golden runs as a user starts them, on several ranks, and cut where tables part, parameters
// rest and stages begin.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data/shard.h"
#include "model/graph/graph.h"
#include "model/load_config.h"
#include "support/file_text.h"
#include "support/golden_ladder.h"
#include "support/golden_match.h"
#include "support/mpirun.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

class LadderRuns : public ::testing::TestWithParam<golden::Station> {
  protected:
    LadderRuns() : config_(GetParam().config()), golden_(read_json(GetParam().numbers())) {
        golden::write_shards(GetParam(), folder_.path());
        const Config config = load_config(config_);
        const ParameterTable table(config, compile(config), at::kCPU);
        // A tiny config names the file as from the project's folder.
        if (!config.data.prefix_table.empty())
            prefixes_ = "--set data.prefix_table=" SPEEDRUN_SOURCE_DIR "/" + config.data.prefix_table + " ";
        golden::write_initial_weights(GetParam(), table, config.model.d_model, folder_ / "init.safetensors");
    }
    void SetUp() override {
        if (!have_mpirun()) GTEST_SKIP() << "needs Open MPI's mpirun";
    }

    // The losses of each step, by the run's metrics; `name` is its folder.
    std::vector<double> train(int ranks, const std::string& name, const std::string& more) const {
        const auto file = [&](const char* own) { return (folder_ / own).string(); };
        const JobResult job =
            mpirun(ranks,
                   std::string(SPEEDRUN_EXECUTABLE) + " train --config " + config_ + " --init " +
                       file("init.safetensors") + " --run-dir " + (folder_ / name).string() +
                       " --set data.train=" + file("train_*.bin") + " --set data.val=" + file("val_0.bin") +
                       " --set runtime.threads=1 " + prefixes_ + more,
                   240);
        EXPECT_EQ(job.exit_code, 0) << job.output;
        std::vector<double> losses;
        std::ifstream metrics(folder_ / name / "metrics.jsonl");
        for (std::string line; std::getline(metrics, line);)
            if (const json values = json::parse(line); values.contains("train_loss"))
                losses.push_back(values["train_loss"]);
        return losses;
    }

    std::string config_, prefixes_;
    json golden_;
    TemporaryFolder folder_;
};

TEST_P(LadderRuns, LossesAreThoseOfTheReferenceOnAnyCountOfRanks) {
    for (const int ranks : {1, 2, 4}) {
        SCOPED_TRACE(ranks);
        // Sequences of track 3 do not care which rows they are in.
        const bool more_rows = load_config(config_).data.rows < ranks;
        const std::vector<double> losses = train(ranks, "on" + std::to_string(ranks),
                                                 more_rows ? fmt::format("--set data.rows={}", ranks) : "");
        ASSERT_EQ(losses.size(), golden_["losses"].size());
        for (size_t step = 0; step < losses.size(); ++step) {
            const json& expected = golden_["losses"][std::to_string(step)];
            const double wanted = expected["mean_f64"].get<double>();
            // Ranks' gradients are added in another order.
            const double order = ranks == 1 ? 0 : 1e-5 * wanted;
            EXPECT_NEAR(losses[step], wanted, expected["tol_mean"].get<double>() + order) << "step " << step;
        }
    }
}

TEST_P(LadderRuns, GoesOnFromEveryTransitionWithTheSameBits) {
    const std::string often =
        "--set runtime.checkpoint.every_steps=1 --set runtime.checkpoint.keep_last=100 ";
    const std::vector<double> whole = train(2, "whole", often);
    const std::string weights = contents(folder_ / "whole" / "weights.safetensors");
    const Config config = load_config(config_);
    const std::string last = fmt::format("step_{:08}", config.schedule.total_steps());
    EXPECT_EQ(contents(folder_ / "whole" / "checkpoints" / last / "weights.safetensors") == weights, true);
    std::set<int64_t> cuts{config.schedule.untie_after_step + 1};
    if (config.schedule.stages.size() == 1) cuts.insert(config.schedule.total_steps() / 2);
    if (const auto& ahead = config.optimizer.lookahead) cuts.insert({ahead->from, ahead->until});
    if (const auto& tail = config.optimizer.tail_ema) cuts.insert({tail->from, tail->from + 1, tail->until});
    for (size_t k = 1; k < config.schedule.stages.size(); ++k) cuts.insert(config.schedule.stages[k].start);
    for (const int64_t cut : cuts) {
        SCOPED_TRACE(cut);
        const fs::path from = folder_ / "whole" / "checkpoints" / fmt::format("step_{:08}", cut);
        if (!fs::exists(from)) continue;  // checkpoints wait for Adam
        const std::string name = "from" + std::to_string(cut);
        const std::vector<double> rest = train(2, name, often + "--resume " + from.string());
        ASSERT_EQ(rest.size(), whole.size() - static_cast<size_t>(cut));
        EXPECT_TRUE(std::ranges::equal(rest, std::span(whole).subspan(static_cast<size_t>(cut))));
        EXPECT_EQ(contents(folder_ / name / "weights.safetensors") == weights, true);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Record, LadderRuns, ::testing::ValuesIn([] {
        std::vector<golden::Station> chosen{golden::track_3(), golden::track_3("track_3_r46")};
        std::ranges::copy_if(golden::stations(), std::back_inserter(chosen),
                             [](const auto& s) { return s.record == 53 || s.record == 89; });
        return chosen;
    }()),
    [](const auto& station) { return station.param.name(); });

}  // namespace
}  // namespace speedrun
