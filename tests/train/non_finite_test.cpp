// A NaN in a gradient on one step: never in the weights, and then what runtime.non_finite says.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "model/initialize.h"
#include "model/load_config.h"
#include "support/golden_inputs.h"
#include "support/temporary_folder.h"
#include "train/trainer.h"

namespace speedrun {
namespace {

class NonFinite : public ::testing::Test {
  protected:
    NonFinite() {
        write_shard(folder_ / "train_1.bin", golden::train_tokens_1());
        write_shard(folder_ / "val_0.bin", golden::val_tokens());
    }

    // Trains four steps on one rank; a NaN comes into the gradient of `param` in the second, if one is named.
    void train(const std::string& param, const std::string& policy) {
        const std::vector<std::string> overrides{"runtime.non_finite=" + policy, "schedule.scheduled_steps=3",
                                                 "schedule.extension_steps=1", "schedule.eval.every=0",
                                                 "data.val_tokens=512"};
        config_ = load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json", overrides);
        model_ = std::make_unique<GPT>(config_, 512, at::kCPU);
        initialize(model_->parameters(), config_.model, 7);
        const auto communicator = make_self_communicator();
        RunOptions options;
        // Backward passes add to what stands in a gradient as its step begins.
        options.at_step = [&](int64_t step) {
            if (!param.empty() && step == 1)
                model_->parameters()[param].grad.view(-1)[3] = std::numeric_limits<float>::quiet_NaN();
        };
        Trainer trainer(config_, *model_, *communicator, {folder_ / "train_1.bin"}, {folder_ / "val_0.bin"},
                        std::move(options));
        Interrupt interrupt;
        trainer.run(nullptr, interrupt);
    }

    bool weights_are_finite() const {
        return std::ranges::all_of(model_->parameters().all(), [](const Parameter& p) {
            return at::isfinite(p.value).all().item<bool>() && at::isfinite(p.used).all().item<bool>();
        });
    }

    TemporaryFolder folder_;
    Config config_;
    std::unique_ptr<GPT> model_;
};

TEST_F(NonFinite, StopsWithTheStep) {
    for (const std::string param : {"mlp_fc", "embed"}) {
        try {
            train(param, "stop");
            ADD_FAILURE() << param;
        } catch (const NonFiniteLoss& error) {
            EXPECT_NE(std::string(error.what()).find("a gradient of step 2 is not finite"), std::string::npos)
                << error.what();
        }
        EXPECT_TRUE(weights_are_finite());
    }
}

TEST_F(NonFinite, OrGoesOnWithoutTheStep) {
    train("attn_qkvo", "skip");
    EXPECT_TRUE(weights_are_finite());
    const at::Tensor skipped = model_->parameters()["attn_qkvo"].value.clone();
    train("", "skip");
    EXPECT_FALSE(skipped.equal(model_->parameters()["attn_qkvo"].value));
}

}  // namespace
}  // namespace speedrun
