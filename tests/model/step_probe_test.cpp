// A step tells a probe what it works on.
#include "model/step_probe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "model/gpt.h"
#include "model/load_config.h"

namespace speedrun {
namespace {

using enum StepPart;

class Recorder final : public StepProbe {
  public:
    void enter(StepPart part) override {
        if (parts.empty() || parts.back() != part) parts.push_back(part);
    }
    void enter(const Node& node, Direction) override { enter(node.part()); }
    std::vector<StepPart> parts;
};

// Record 43's plan, 10 layers with attention and 11 with an MLP.
TEST(StepProbe, GoesThroughEveryLayerForwardAndBack) {
    const Config config = load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json");
    GPT model(config, 8, at::kMeta);
    const Batch batch{std::vector<int32_t>(8, 1), std::vector<int64_t>(8, 2), {0, 8}};
    Recorder recorder;
    StepSettings settings = settings_at(config, 0);
    settings.max_seq_len = 8;
    model.forward_backward(batch, settings, 1, {}, &recorder);
    const std::vector<StepPart>& parts = recorder.parts;
    ASSERT_GT(parts.size(), 100U);
    EXPECT_EQ((std::vector(parts.begin(), parts.begin() + 5)),
              (std::vector{rest, norms, attention, norms, attention}));
    EXPECT_EQ(std::ranges::count(parts, mlp), 2 * 11);
    // Each way: projections, rotary, attention, gate, projections.
    EXPECT_EQ(std::ranges::count(parts, attention), 2 * 10 * 3);
    // The head's forward is its backward too.
    ASSERT_EQ(std::ranges::count(parts, head), 1);
    const auto at = std::ranges::find(parts, head);
    EXPECT_EQ(*(at - 1), norms);
    EXPECT_EQ(*(at + 1), rest);
    EXPECT_EQ(std::ranges::count(parts, optimizer) + std::ranges::count(parts, communication), 0);
    EXPECT_EQ(parts.back(), rest);
}

}  // namespace
}  // namespace speedrun
