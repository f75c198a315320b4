// The loss of prefixes (record 88) in a whole model.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include <optional>
#include <vector>

#include "model/gpt.h"
#include "model/initialize.h"
#include "model/load_config.h"
#include "util/error.h"

namespace speedrun {
namespace {

constexpr int64_t batch_tokens = 64, vocab = 512;

class PrefixLossOfModel : public ::testing::Test {
  protected:
    struct Outcome {
        double loss;
        std::vector<at::Tensor> gradients;
    };

    PrefixLossOfModel() {
        initialize(model_.parameters(), config_.model, 3);
        settings_.max_seq_len = batch_tokens;
        settings_.mtp_weights = {1, 0.5};
    }

    // Every token but 0 has a prefix, which is another token.
    static std::vector<int64_t> halves() {
        std::vector<int64_t> prefixes(vocab, -1);
        for (size_t id = 1; id < prefixes.size(); ++id) prefixes[id] = static_cast<int64_t>(id / 2);
        return prefixes;
    }

    // Targets in [least, vocab).
    static Batch some_batch(int64_t least) {
        Batch batch{{}, {}, {0, 20, batch_tokens}};
        for (int32_t t = 0; t < batch_tokens; ++t) {
            batch.inputs.push_back((37 * t + 11) % 499);
            batch.targets.push_back(least + (91 * t + 5) % (vocab - least));
        }
        return batch;
    }

    Outcome pass(const Batch& batch, const std::vector<double>& mtp_weights,
                 std::optional<double> prefix_weight) {
        for (Parameter& parameter : model_.parameters().all()) parameter.grad.zero_();
        settings_.mtp_weights = mtp_weights;
        settings_.prefix_weight = prefix_weight;
        const double loss = model_.forward_backward(batch, settings_, 0.125).item<double>();
        Outcome outcome{loss, {}};
        for (const Parameter& parameter : model_.parameters().all())
            outcome.gradients.push_back(parameter.grad.to(at::kDouble));
        return outcome;
    }

    const Config config_ = load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json");
    GPT model_{config_, batch_tokens, at::kCPU};
    StepSettings settings_ = settings_at(config_, 0);
};

// Loss and gradients are linear in the weights: those of prefixes are p times those of a model whose next
// tokens are the prefixes. In fp32 they were 2.1e-7 of a gradient's norm apart at most; ten times that is
// allowed.
TEST_F(PrefixLossOfModel, IsThatOfNextTokensThatArePrefixes) {
    const std::vector<int64_t> prefixes = halves();
    model_.use_prefixes(prefixes);
    const Batch batch = some_batch(1);
    Batch of_prefixes = batch;
    for (int64_t& target : of_prefixes.targets) target = prefixes[static_cast<size_t>(target)];
    const double p = 0.25;
    const Outcome found = pass(batch, {1, 0.5}, p), tokens = pass(batch, {1, 0.5}, std::nullopt),
                  alone = pass(of_prefixes, {1}, std::nullopt);
    EXPECT_NEAR(found.loss, tokens.loss + p * alone.loss, 1e-6 * found.loss);
    for (size_t i = 0; i < found.gradients.size(); ++i) {
        const at::Tensor expected = tokens.gradients[i] + p * alone.gradients[i];
        EXPECT_LE((found.gradients[i] - expected).norm().item<double>(),
                  2e-6 * expected.norm().item<double>())
            << model_.parameters().all()[i].config.name;
    }
    EXPECT_GT(found.loss, 1.1 * tokens.loss);
}

// Targets without a prefix, and a table in which nothing has one, leave every bit as it is.
TEST_F(PrefixLossOfModel, IsNoneWhereThereIsNoPrefix) {
    Batch batch = some_batch(0);
    std::ranges::fill(batch.targets, 0);
    const Outcome without = pass(batch, {1, 0.5}, std::nullopt);
    model_.use_prefixes(halves());
    const Outcome with = pass(batch, {1, 0.5}, 0.25);
    EXPECT_EQ(with.loss, without.loss);
    for (size_t i = 0; i < with.gradients.size(); ++i)
        EXPECT_TRUE(with.gradients[i].equal(without.gradients[i]))
            << model_.parameters().all()[i].config.name;
}

TEST_F(PrefixLossOfModel, ValidationHasNone) {
    const Batch batch = some_batch(1);
    const double without = model_.evaluate(batch, settings_).item<double>();
    settings_.prefix_weight = 0.25;
    EXPECT_EQ(model_.evaluate(batch, settings_).item<double>(), without);  // it needs no table either
    model_.use_prefixes(halves());
    EXPECT_EQ(model_.evaluate(batch, settings_).item<double>(), without);
}

TEST_F(PrefixLossOfModel, NeedsATableThatFits) {
    EXPECT_THROW(pass(some_batch(1), {1}, 0.25), InternalError);
    EXPECT_THROW(model_.use_prefixes({1, 2}), InternalError);
    EXPECT_THROW(model_.use_prefixes({-2}), InternalError);
    model_.use_prefixes({-1, 0});
    EXPECT_THROW(pass(some_batch(1), {1}, 0.25), InternalError);
}

}  // namespace
}  // namespace speedrun
