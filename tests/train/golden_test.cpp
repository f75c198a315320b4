// Record 43's own train_gpt.py, run on a tiny model in fp64 and fp32, against this program in fp32: every
// gradient after 1 and 8 micro-batches, every weight and loss over 12 steps, validation losses. The numbers
// are checksums of whole tensors (sum, l2, projection on fixed weights) and 8 samples of each; tolerances are
// 10 times the largest distance that fp32 runs of the Python itself have from its fp64 run
// (tests/golden/record43.json, "about").
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/step_shapes.h"
#include "model/gpt.h"
#include "model/load_config.h"
#include "model/weights.h"
#include "optim/optimizer.h"
#include "support/golden_inputs.h"
#include "support/golden_match.h"
#include "support/temporary_folder.h"
#include "train/trainer.h"

namespace speedrun {
namespace {

class Golden : public ::testing::Test {
  protected:
    Golden()
        : golden_(read_json(SPEEDRUN_SOURCE_DIR "/tests/golden/record43.json")),
          config_(load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json")) {
        write_shard(folder_ / "train_1.bin", golden::train_tokens_1());
        write_shard(folder_ / "val_0.bin", golden::val_tokens());
        config_.data.train = folder_ / "train_*.bin";
        config_.data.val = folder_ / "val_*.bin";
        model_ = std::make_unique<GPT>(config_, config_.data.val_micro_batch_tokens, at::kCPU);
        write_initial_weights(folder_ / "init.safetensors");
        load_weights(model_->parameters(), folder_ / "init.safetensors");
        optimizer_ = std::make_unique<Optimizer>(config_, model_->parameters(), *communicator_);
        loader_ = std::make_unique<TrainLoader>(find_shards(config_.data.train), data_layout(config_.data));
    }

    // Compares `which` (value or grad), scaled, of every parameter under the reference's names.
    void expect_tensors(const std::string& tag, at::Tensor Parameter::*which, double scale = 1) {
        const json& tensors = golden_.at("tensors").at(tag);
        size_t compared = 0;
        for (const Parameter& parameter : model_->parameters().all()) {
            for (const StateDictEntry& entry : state_dict_entries(parameter.config)) {
                const at::Tensor part = entry.of(parameter.*which);
                expect_matches(tensors.at(entry.name), part * scale, tag + " " + entry.name);
                ++compared;
            }
        }
        EXPECT_EQ(compared, tensors.size());
    }

    std::vector<Batch> next_batches(const StepSettings& settings) {
        return loader_->next_step(step_shape(config_.data, settings));
    }

    TemporaryFolder folder_;
    json golden_;
    Config config_;
    std::unique_ptr<Communicator> communicator_ = make_self_communicator();
    std::unique_ptr<GPT> model_;
    std::unique_ptr<Optimizer> optimizer_;
    std::unique_ptr<TrainLoader> loader_;
};

TEST_F(Golden, InitialWeights) {
    expect_tensors("init", &Parameter::value);
}

TEST_F(Golden, GradientOfOneMicroBatch) {
    const StepSettings settings = settings_at(config_, 0);
    const double loss =
        model_->forward_backward(next_batches(settings).front(), settings, 1.0 / 8).item<double>();
    EXPECT_NEAR(loss, golden_["losses"]["0"]["micro_sum_f64"][0].get<double>(),
                256 * golden_["losses"]["0"]["tol_mean"].get<double>());
    expect_tensors("grad_micro1", &Parameter::grad);
}

TEST_F(Golden, GradientsOfAStepAndTheNext) {
    for (int64_t step = 0; step < 2; ++step) {
        const StepSettings settings = settings_at(config_, step);
        accumulate_gradients(*model_, config_, next_batches(settings), settings);
        expect_tensors(step == 0 ? "grad_step0" : "grad_step1", &Parameter::grad,
                       gradient_scale(config_.objective, 1));
        optimizer_->step(settings);
    }
}

TEST_F(Golden, TwelveSteps) {
    const ValLoader val_loader(find_shards(config_.data.val), data_layout(config_.data),
                               val_row(config_.data), config_.data.val_tokens);
    for (int64_t step = 0; step <= 12; ++step) {
        const StepSettings settings = settings_at(config_, step);
        const std::string key = std::to_string(step);
        EXPECT_EQ(settings.validate, golden_["val"].contains(key)) << step;
        if (settings.validate) {
            const json& val = golden_["val"][key];
            EXPECT_NEAR(validate(*model_, val_loader, settings, *communicator_),
                        val["nats_f64"].get<double>(), val["tol"].get<double>())
                << "validation at step " << step;
        }
        if (!settings.trains) break;
        const auto sums = accumulate_gradients(*model_, config_, next_batches(settings), settings);
        const double loss = at::stack(sums).sum().item<double>() / static_cast<double>(settings.batch_tokens);
        const json& losses = golden_["losses"][key];
        EXPECT_NEAR(loss, losses["mean_f64"].get<double>(), losses["tol_mean"].get<double>())
            << "loss of step " << step;
        EXPECT_DOUBLE_EQ(model_->rotary().attn_scale(), golden_["schedule"][key]["attn_scale"].get<double>());
        optimizer_->step(settings);
        const std::string tag = "weights_after" + std::to_string(step + 1);
        if (golden_["tensors"].contains(tag)) expect_tensors(tag, &Parameter::value);
    }
    const json& yarn = golden_["tensors"]["yarn_end"];
    expect_matches(yarn["cos"], model_->rotary().cos(), "cos");
    expect_matches(yarn["sin"], model_->rotary().sin(), "sin");
    expect_matches(yarn["angular_freq"], at::tensor(model_->rotary().angular_freq()), "angular_freq");
}

}  // namespace
}  // namespace speedrun
