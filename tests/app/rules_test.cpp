// Rules of matrices whose state is unlike NorMuon's, as a user runs them: on several ranks, cut and resumed,
// with diagnostics. What holds for every rule is in tests/optim/every_rule_test.cpp.
#include <gtest/gtest.h>

#include "support/golden_runs.h"

namespace speedrun {
namespace {

class RulesOnRanks : public GoldenRuns, public ::testing::WithParamInterface<const char*> {
  protected:
    RulesOnRanks() { settings_ = rows_a_step(2); }
    static std::string short_run() {
        const std::string name = GetParam();
        std::string more = "--set optimizer.matrix.rule=" + name + " --set schedule.scheduled_steps=3 " +
                           "--set schedule.extension_steps=1 --set runtime.checkpoint.every_steps=2 ";
        if (name == "adamuon") more += "--set optimizer.matrix.orthogonalize.dtype=fp32 ";
        // Eigenvectors of sides of 512 would take most of the time.
        if (name == "shampoo" || name == "soap")
            more +=
                "--set optimizer.matrix.preconditioner.max_size=128 "
                "--set optimizer.matrix.preconditioner.every_n_steps=2 ";
        return more;
    }
};

TEST_P(RulesOnRanks, ShardedResumedAndLookedAt) {
    const TrainingRun one = train(1, "one", short_run() + "--diagnostics 2 ");
    const TrainingRun two = train(2, "two", short_run());
    ASSERT_EQ(one.train_losses.size(), 4U);
    ASSERT_EQ(two.train_losses.size(), 4U);
    for (size_t i = 0; i < 4; ++i)
        EXPECT_NEAR(two.train_losses[i], one.train_losses[i], 1e-5 * one.train_losses[i]) << "step " << i;
    EXPECT_NE(contents(folder_ / "one" / "metrics.jsonl").find("\"condition/blocks.1.mlp.c_fc\""),
              std::string::npos);
    const std::string from = "--resume " + (folder_ / "two" / "checkpoints" / "step_00000002").string() + " ";
    const TrainingRun rest = train(2, "rest", short_run() + from);
    EXPECT_EQ(rest.train_losses.size(), 2U);
    EXPECT_EQ(contents(rest.weights), contents(two.weights));
}

INSTANTIATE_TEST_SUITE_P(Some, RulesOnRanks,
                         ::testing::Values("adamuon", "mommuon", "adamw", "shampoo", "soap"),
                         [](const auto& rule) { return std::string(rule.param); });

}  // namespace
}  // namespace speedrun
