#include "train/trainer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <random>
#include <thread>

#include "data/step_shapes.h"
#include "model/initialize.h"
#include "model/load_config.h"
#include "plan/throughput.h"
#include "support/expect_error.h"
#include "support/golden_inputs.h"
#include "support/temporary_folder.h"
#include "train/sample.h"

namespace speedrun {
namespace {

Config golden_config(const std::vector<std::string>& overrides = {}) {
    return load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json", overrides);
}

// Gradient of every parameter after one step's micro-batches.
std::vector<at::Tensor> gradients(const std::string& accumulation, int64_t step) {
    const TemporaryFolder folder;
    write_shard(folder / "train_1.bin", golden::train_tokens_1());
    const Config config = golden_config({"objective.accumulation=" + accumulation});
    GPT model(config, settings_at(config, step).row_tokens, at::kCPU);
    initialize(model.parameters(), config.model, 7);
    model.parameters()["lm_head"].value.normal_(0, 0.05, at::detail::createCPUGenerator(1));
    TrainLoader loader({folder / "train_1.bin"}, data_layout(config.data));
    const StepSettings settings = settings_at(config, step);
    accumulate_gradients(model, config, loader.next_step(step_shape(config.data, settings)), settings);
    std::vector<at::Tensor> out;
    const double scale = gradient_scale(config.objective, 1);
    for (const Parameter& parameter : model.parameters().all()) out.push_back(parameter.grad * scale);
    return out;
}

// 8 is a power of two, so scaling by it commutes with every rounding: the first two orders agree bit for bit.
TEST(Accumulation, OrdersDifferOnlyInTheDivision) {
    const auto once = gradients("sum_then_divide", 1), each = gradients("divide_then_sum", 1),
               never = gradients("sum", 1);
    for (size_t i = 0; i < once.size(); ++i) {
        EXPECT_TRUE(at::equal(once[i], each[i])) << i;
        EXPECT_TRUE(at::equal(once[i] * 8, never[i])) << i;
    }
}

TEST(Interrupt, HoldsTheFirstSignalBack) {
    Interrupt interrupt;
    EXPECT_FALSE(interrupt.poll());
    ASSERT_EQ(std::raise(SIGINT), 0);
    EXPECT_EQ(interrupt.poll(), SIGINT);
    EXPECT_EQ(interrupt.poll(), SIGINT);
}

TEST(Interrupt, HearsWhatIsSentToTheProcess) {
    Interrupt interrupt;
    EXPECT_FALSE(interrupt.poll_save());
    ::kill(::getpid(), SIGUSR1);
    ::kill(::getpid(), SIGHUP);
    for (int i = 0; i < 2000 && !interrupt.poll(); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(interrupt.poll(), SIGHUP);
    EXPECT_TRUE(interrupt.poll_save());
}

// Whether or not anybody looks.
TEST(Interrupt, TheSecondSignalEndsTheProcessAtOnce) {
    const pid_t child = ::fork();
    if (child == 0) {
        const Interrupt interrupt;
        ::kill(::getpid(), SIGINT);
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        ::kill(::getpid(), SIGTERM);
        std::this_thread::sleep_for(std::chrono::seconds(20));
        ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

TEST(Interrupt, WhatComesAfterTheLastLookIsForgotten) {
    const pid_t child = ::fork();
    if (child == 0) {
        {
            Interrupt interrupt;
            interrupt.poll();
            ::kill(::getpid(), SIGTERM);
        }
        forget_late_signals();
        ::kill(::getpid(), SIGTERM);
        ::_exit(7);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
}

TEST(Interrupt, LeavesSighupToNohup) {
    const auto before = std::signal(SIGHUP, SIG_IGN);
    {
        Interrupt interrupt;
        ::kill(::getpid(), SIGHUP);
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        EXPECT_FALSE(interrupt.poll());
    }
    std::signal(SIGHUP, before);
}

TEST(Validate, StopsBetweenTwoMicroBatches) {
    const TemporaryFolder folder;
    write_shard(folder / "val_0.bin", golden::val_tokens());
    const Config config = golden_config({"data.val_tokens=2048"});
    GPT model(config, config.data.val_micro_batch_tokens, at::kCPU);
    initialize(model.parameters(), config.model, 7);
    const ValLoader loader({folder / "val_0.bin"}, data_layout(config.data), val_row(config.data),
                           config.data.val_tokens);
    ASSERT_GT(loader.size(), 2);
    const StepSettings settings = settings_at(config, 0);
    const auto alone = make_self_communicator();
    int asked = 0;
    EXPECT_EQ(validate_unless([&] { return ++asked == 2; }, model, loader, settings, *alone), std::nullopt);
    EXPECT_EQ(asked, 2);
    EXPECT_EQ(validate_unless([] { return false; }, model, loader, settings, *alone),
              validate(model, loader, settings, *alone));
}

TEST(Sample, LogitsThatAreNotFiniteGiveNoText) {
    std::mt19937_64 random(3);
    const SampleOptions options{.vocab_size = 3};
    for (const float wrong : {NAN, INFINITY})
        expect_user_error(
            [&] {
                draw_token(at::tensor({1.0F, wrong, 2.0F, 0.0F}), options, random);
            },
            {"logits are not finite"});
}

TEST(Throughput, ACpuMultipliesMoreThan100MillionTimesASecond) {
    EXPECT_GT(measure_gemm_peak(at::kFloat, at::kCPU), 1e8);
}

TEST(Sample, DrawsFromTheTopKOfTheRealVocabulary) {
    const at::Tensor logits = at::tensor({1.0F, 5.0F, 4.0F, 0.0F, 30.0F});
    SampleOptions options{.temperature = 1, .top_k = 2, .vocab_size = 4};
    std::mt19937_64 random(3);
    int first = 0;
    constexpr int draws = 4000;
    for (int i = 0; i < draws; ++i) {
        const int32_t token = draw_token(logits, options, random);
        ASSERT_TRUE(token == 1 || token == 2) << token;
        first += token == 1;
    }
    const double p = 1 / (1 + std::exp(-1.0));                          // softmax of {5, 4}
    EXPECT_NEAR(first, draws * p, 5 * std::sqrt(draws * p * (1 - p)));  // five standard deviations
    options.temperature = 0;
    EXPECT_EQ(draw_token(logits, options, random), 1);
}

TEST(Sample, TokensAfterThePositionHaveNoEffect) {
    const Config config = golden_config();
    GPT model(config, 64, at::kCPU);
    initialize(model.parameters(), config.model, 7);
    model.parameters()["lm_head"].value.normal_(0, 0.05, at::detail::createCPUGenerator(1));
    const StepSettings settings = settings_at(config, 0);
    std::vector<int32_t> tokens(64, 3), other(64, 3);
    tokens[0] = other[0] = static_cast<int32_t>(golden::kBos);
    for (size_t i = 10; i < other.size(); ++i) other[i] = 7;
    const at::Tensor a = model.next_token_logits(tokens, 9, settings),
                     b = model.next_token_logits(other, 9, settings);
    EXPECT_TRUE(at::equal(a, b));
    EXPECT_FALSE(at::equal(a, model.next_token_logits(other, 10, settings)));
}

}  // namespace
}  // namespace speedrun
