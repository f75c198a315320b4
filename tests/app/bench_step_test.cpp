// The shares of a step, and `speedrun bench step` on the golden model.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "app/bench/step_shares.h"
#include "support/mpirun.h"

namespace speedrun {
namespace {

using Json = nlohmann::json;

double of(const PartTimes& times, StepPart part) {
    return times[static_cast<size_t>(part)];
}

TEST(StepTimer, GivesEachPartTheTimeUntilTheNext) {
    using std::chrono::milliseconds;
    StepTimer timer(at::kCPU);
    const auto spend = [&](StepPart part, int ms) {
        timer.enter(part);
        std::this_thread::sleep_for(milliseconds(ms));
    };
    spend(StepPart::head, 20);
    spend(StepPart::mlp, 5);
    spend(StepPart::head, 20);
    const PartTimes times = timer.take();
    // A sleep is no shorter than asked for.
    EXPECT_GE(of(times, StepPart::head), 40);
    EXPECT_GE(of(times, StepPart::mlp), 5);
    EXPECT_EQ(of(times, StepPart::norms), 0);
    EXPECT_EQ(timer.take(), PartTimes{});
}

TEST(StepShares, AreOfAllStepsAdded) {
    StepShares shares;
    PartTimes one{}, two{};
    one[static_cast<size_t>(StepPart::head)] = 30;
    two[static_cast<size_t>(StepPart::head)] = 10;
    two[static_cast<size_t>(StepPart::optimizer)] = 60;
    shares.add(one, 20);
    shares.add(two, 30);
    EXPECT_EQ(shares.total_ms(), 100);
    EXPECT_EQ(shares_text(shares),
              "head 40.0 %  attention 0.0 %  mlp 0.0 %  norms 0.0 %  optimizer 60.0 %  communication 0.0 %  "
              "rest 0.0 %; floor 50.0 %");
    const Json json = shares_json(shares);
    EXPECT_EQ(json["share"]["optimizer"], 0.6);
    EXPECT_EQ(json["floor_share"], 0.5);
}

TEST(BenchStepVerb, SharesOfTheGoldenModelAddUp) {
    const JobResult result =
        run_command(std::string(SPEEDRUN_EXECUTABLE) +
                    " bench step --steps 4 --json --set runtime.threads=1 --config " SPEEDRUN_SOURCE_DIR
                    "/tests/golden/golden_tiny.json");
    ASSERT_EQ(result.exit_code, 0) << result.output;
    const Json json = Json::parse(result.output);
    double sum = 0;
    for (const auto& [part, share] : json["share"].items()) {
        EXPECT_GE(share.get<double>(), 0) << part;
        sum += share.get<double>();
    }
    EXPECT_NEAR(sum, 1, 1e-9);
    for (const char* part : {"head", "attention", "mlp", "norms", "optimizer"})
        EXPECT_GT(json["share"][part].get<double>(), 0) << part;
    EXPECT_GT(json["floor_share"].get<double>(), 0);
    // The parts are those of the same steps.
    EXPECT_EQ(json["forward_backward_ms"].size(), 4U);
}

}  // namespace
}  // namespace speedrun
