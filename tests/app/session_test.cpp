#include "app/session.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/load_config.h"

namespace speedrun {
namespace {

// YaRN's steps are cumulative: a trained model is used with the tables that 3 -> 7 -> 11 -> 13 leave, which a
// single step from 3 to 13 does not give (0.1293).
TEST(Session, FinalSettingsTakeEveryYarnStepOfTheSchedule) {
    const Config config = load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json");
    const auto model = make_model(config, std::nullopt, config.data.val_micro_batch_tokens, at::kCPU);
    const StepSettings settings = final_settings(config, *model);
    const auto factor = [](double from, double to) { return 1 + 0.2 * std::log(to / from); };
    EXPECT_DOUBLE_EQ(model->rotary().attn_scale(), 0.1 * factor(3, 7) * factor(7, 11) * factor(11, 13));
    EXPECT_EQ(model->rotary().window(), settings.yarn_window);
    EXPECT_EQ(settings.window_long, 20 * 8);
}

}  // namespace
}  // namespace speedrun
