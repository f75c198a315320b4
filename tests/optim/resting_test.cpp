// Parameters that rest, that are replicated, and tables that part: what the optimizer does with their values,
// gradients, moments and counts of steps.
#include <gtest/gtest.h>

#include <algorithm>

#include "ops/optim/matrix_update.h"
#include "small_run.h"

namespace speedrun {
namespace {

at::Tensor state_of(const SmallRun& run, const std::string& name) {
    const std::vector<NamedTensor> state = run.optimizer.state();
    return std::ranges::find(state, name, &NamedTensor::name)->tensor;
}

StepSettings adam_step() {
    StepSettings settings;
    settings.adam_steps = true;
    return settings;
}

TEST(Resting, ParametersStayAndForgetTheirGradients) {
    SmallRun run;
    StepSettings settings = adam_step();
    settings.resting = {"scalars"};
    const at::Tensor before = run.table["scalars"].value.clone(), embed = run.table["embed"].value.clone();
    run.add_gradients(1);
    run.optimizer.step(settings);
    EXPECT_TRUE(run.table["scalars"].value.equal(before));
    EXPECT_FALSE(run.table["embed"].value.equal(embed));
    EXPECT_EQ(run.table["scalars"].grad.count_nonzero().item<int64_t>(), 0);
    EXPECT_EQ(state_of(run, "scalars.step").item<int64_t>(), 0);
    EXPECT_EQ(state_of(run, "embed.step").item<int64_t>(), 1);
    EXPECT_EQ(state_of(run, "scalars.exp_avg").count_nonzero().item<int64_t>(), 0);
}

// A gradient that waits for Adam's turn is forgotten too.
TEST(Resting, ForgetsGradientsInStepsThatAreNotAdams) {
    SmallRun run;
    StepSettings settings;
    settings.resting = {"scalars"};
    run.add_gradients(1);
    run.optimizer.step(settings);
    EXPECT_EQ(run.table["scalars"].grad.count_nonzero().item<int64_t>(), 0);
    EXPECT_GT(run.table["embed"].grad.count_nonzero().item<int64_t>(), 0);
}

TEST(Buffer, KeepsItsValuesAndHasNoMoments) {
    Config config = small_run();
    std::ranges::find(config.optimizer.params, "scalars", &OptimParamConfig::param)->rule =
        OptimParamConfig::Rule::none;
    SmallRun run(config);
    const at::Tensor before = run.table["scalars"].value.clone(), embed = run.table["embed"].value.clone();
    run.add_gradients(1);
    run.optimizer.step(adam_step());
    EXPECT_TRUE(run.table["scalars"].value.equal(before));
    EXPECT_FALSE(run.table["embed"].value.equal(embed));
    for (const NamedTensor& part : run.optimizer.state())
        EXPECT_FALSE(part.name.starts_with("scalars.") && part.name != "scalars.step") << part.name;
}

TEST(Untie, CopiesValuesMomentsAndTheCountOfSteps) {
    Config config = small_run();
    config.model.input.token = "embed";
    config.model.input.tied_to = "lm_head";
    SmallRun run(config);
    StepSettings settings = adam_step();
    settings.resting = {"embed"};
    settings.tied = true;
    for (int i = 0; i < 3; ++i) {
        run.add_gradients(static_cast<uint64_t>(i));
        settings.unties = i == 2;
        run.optimizer.step(settings);
        EXPECT_TRUE(run.table["embed"].value.equal(run.table["lm_head"].value));
        EXPECT_EQ(state_of(run, "embed.step").item<int64_t>(), i == 2 ? 3 : 0);
    }
    for (const char* what : {".exp_avg", ".exp_avg_sq", ".step"})
        EXPECT_TRUE(
            state_of(run, std::string("embed") + what).equal(state_of(run, std::string("lm_head") + what)));
    EXPECT_EQ(state_of(run, "embed.step").item<int64_t>(), 3);
    EXPECT_EQ(run.table["embed"].used.to(at::kFloat).equal(run.table["lm_head"].used.to(at::kFloat)), true);
}

TEST(Replicated, GivesTheSameValuesAsSharded) {
    Config config = small_run();
    SmallRun sharded(config);
    for (OptimParamConfig& row : config.optimizer.params)
        if (row.rule == OptimParamConfig::Rule::adam) row.comm = OptimParamConfig::Comm::replicated;
    SmallRun replicated(config);
    for (int64_t i = 0; i < 4; ++i) {
        sharded.step(i);
        replicated.step(i);
    }
    for (const Parameter& p : sharded.table.all())
        EXPECT_TRUE(p.value.equal(replicated.table[p.config.name].value)) << p.config.name;
}

TEST(Replicated, EveryRankHasAllUnits) {
    Config config = small_run();
    config.optimizer.params[0].comm = OptimParamConfig::Comm::replicated;
    const Bucket bucket = plan_ownership(config, 4).buckets[0];
    ASSERT_TRUE(bucket.replicated);
    for (int64_t rank = 0; rank < 4; ++rank) {
        EXPECT_EQ(bucket.owned_by(rank), bucket.pieces);
        EXPECT_EQ(bucket.units[static_cast<size_t>(rank)], bucket.total_units());
    }
}

// Small steps are not lost in bf16: the sum of a thousand of them arrives.
TEST(Mantissa, KeepsStepsThatBf16WouldRoundAway) {
    const at::Tensor value = at::ones({1, 2, 2}, at::kBFloat16), update = at::full({1, 2, 2}, 1e-4);
    const ops::MatrixStep step{.lr = 1, .mantissa = at::zeros({1, 2, 2}, at::kShort)};
    for (int i = 0; i < 1000; ++i) ops::apply_matrix_update(update, {}, {}, value, {}, step);
    // 0.9 cut off to 8 bits; a thousand roundings of fp32 are below 1e-4.
    EXPECT_TRUE(value.to(at::kFloat).equal(at::full({1, 2, 2}, 0.8984375F)));
    const at::Tensor alone = at::ones({1, 2, 2}, at::kBFloat16);
    for (int i = 0; i < 1000; ++i) ops::apply_matrix_update(update, {}, {}, alone, {}, {.lr = 1});
    EXPECT_TRUE(alone.equal(at::ones_like(alone)));
}

// The upper half is cut off, not rounded, whatever the implementation.
TEST(Mantissa, FormsAgreeAndCutOff) {
    at::manual_seed(5);
    const at::Tensor exact = at::randn({3, 40, 24}), update = at::randn({3, 40, 24}).to(at::kBFloat16);
    const at::Tensor bits = exact.view(at::kInt), low = bits.bitwise_and(0xffff).to(at::kShort);
    const at::Tensor high = bits.bitwise_right_shift(16).to(at::kShort).view(at::kBFloat16).clone();
    const at::Tensor muls = at::tensor({1.0F, 2.0F, 0.5F});
    const auto step = [&](const at::Tensor& mantissa) {
        return ops::MatrixStep{.lr = 0.03,
                               .decay = 0.2,
                               .decay_kind = MatrixConfig::Decay::cautious,
                               .lr_muls = muls,
                               .mantissa = mantissa};
    };
    const at::Tensor a = high.clone(), a_low = low.clone(), b = high.clone(), b_low = low.clone();
    ops::apply_matrix_update(update, {}, {}, a, {}, step(a_low));
    ops::reference::apply_matrix_update(update, {}, {}, b, {}, step(b_low));
    const auto whole = [](const at::Tensor& upper, const at::Tensor& lower) {
        return upper.view(at::kShort)
            .to(at::kInt)
            .mul(1 << 16)
            .add(lower.to(at::kInt).bitwise_and(0xffff))
            .view(at::kFloat);
    };
    const at::Tensor u = update.to(at::kDouble), p = exact.to(at::kDouble);
    const at::Tensor wanted =
        p - 0.03 * muls.to(at::kDouble).view({-1, 1, 1}) * (u + 0.2 * p * (u * p).ge(0));
    // Two roundings of fp32 of numbers below 4, one of them contracted or not.
    EXPECT_LT((whole(a, a_low).to(at::kDouble) - wanted).abs().max().item<double>(), 1e-6);
    EXPECT_LT((whole(b, b_low).to(at::kDouble) - wanted).abs().max().item<double>(), 1e-6);
    EXPECT_TRUE((a.to(at::kFloat).abs() <= whole(a, a_low).abs()).all().item<bool>());
}

}  // namespace
}  // namespace speedrun
