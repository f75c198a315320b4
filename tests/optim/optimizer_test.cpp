#include "optim/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "optim/diagnostics.h"
#include "small_run.h"

namespace speedrun {
namespace {

bool is_zero(const at::Tensor& x) {
    return x.eq(0).all().item<bool>();
}

TEST(Optimizer, AdamWaitsAndItsGradientsAddUp) {
    SmallRun run;
    const at::Tensor embed = run.table["embed"].value.clone(), fc = run.table["mlp_fc"].value.clone();
    run.step(0);
    EXPECT_TRUE(run.table["embed"].value.equal(embed));
    EXPECT_FALSE(run.table["mlp_fc"].value.equal(fc));
    EXPECT_FALSE(is_zero(run.table["embed"].grad));
    EXPECT_TRUE(is_zero(run.table["mlp_fc"].grad));
    EXPECT_TRUE(is_zero(run.table["smear_gate"].grad));
    const at::Tensor first = run.table["embed"].grad.clone();
    run.add_gradients(1);
    const at::Tensor both = run.table["embed"].grad.clone();
    EXPECT_FALSE(both.equal(first));
    StepSettings settings;
    settings.step = 1;
    settings.adam_steps = true;
    run.optimizer.step(settings);
    EXPECT_TRUE(is_zero(run.table["embed"].grad));
    const std::vector<NamedTensor> state = run.optimizer.state();
    const auto exp_avg = std::ranges::find(state, "embed.exp_avg", &NamedTensor::name)->tensor;
    EXPECT_TRUE(at::allclose(exp_avg.to(at::kFloat), 0.35 * both.to(at::kFloat), 0.004));  // bf16: 2^-8
    const auto count = [&](const char* name) {
        return std::ranges::find(state, name, &NamedTensor::name)->tensor.item<int64_t>();
    };
    EXPECT_EQ(count("embed.step"), 1);
    EXPECT_EQ(count("mlp_fc.step"), 2);
}

TEST(Optimizer, CopiesAreFresh) {
    SmallRun run;
    run.step(0);
    run.step(1);
    for (const Parameter& p : run.table.all())
        EXPECT_TRUE(p.used.equal(p.value.to(p.used.scalar_type()))) << p.config.name;
}

TEST(Optimizer, SkippedStepsLeaveNothingBehind) {
    SmallRun run;
    run.step(0);
    run.step(1);
    std::vector<at::Tensor> before;
    for (const Parameter& p : run.table.all()) before.push_back(p.value.clone());
    for (const auto& part : run.optimizer.state()) before.push_back(part.tensor.clone());
    run.add_gradients(2);
    EXPECT_TRUE(gradients_are_finite(run.optimizer));
    for (const std::string name : {"embed", "mlp_proj", "scalars"}) {
        run.table[name].grad.view(-1)[-1] = std::numeric_limits<float>::quiet_NaN();
        EXPECT_FALSE(gradients_are_finite(run.optimizer)) << name;
        run.table[name].grad.view(-1)[-1] = std::numeric_limits<float>::infinity();
        EXPECT_FALSE(gradients_are_finite(run.optimizer)) << name;
        run.table[name].grad.view(-1)[-1] = 0;
    }
    run.optimizer.skip();
    for (const Parameter& p : run.table.all()) EXPECT_TRUE(is_zero(p.grad)) << p.config.name;
    size_t next = 0;
    for (const Parameter& p : run.table.all()) EXPECT_TRUE(p.value.equal(before[next++])) << p.config.name;
    for (const auto& part : run.optimizer.state())
        EXPECT_TRUE(part.tensor.equal(before[next++])) << part.name;
}

TEST(Optimizer, EveryParameterNeedsOneRow) {
    const auto communicator = make_self_communicator();
    Config config = small_run();
    ParameterTable table(config, compile(config), at::kCPU);
    config.optimizer.params.pop_back();
    EXPECT_ANY_THROW(Optimizer(config, table, *communicator));
    config.optimizer.params.push_back(config.optimizer.params[0]);
    EXPECT_ANY_THROW(Optimizer(config, table, *communicator));
}

TEST(StepDiagnostics, MeasuresWhatAStepDid) {
    SmallRun run;
    StepDiagnostics diagnostics(run.config, run.table);
    run.step(0);
    const auto found = diagnostics.measure();
    ASSERT_EQ(found.size(), 1u + 40 + 10 + 11 + 11);
    EXPECT_EQ(found[6].name, "blocks.2.attn.qkvo_w[1]");
    EXPECT_EQ(found[51].name, "blocks.1.mlp.c_fc");
    // The first step: 32 singular values of about 1 in 32 x 32, so an RMS of 1/sqrt(32), times lr 0.03; decay
    // adds a little.
    EXPECT_NEAR(found[6].update_rms, 0.03 / std::sqrt(32.0), 0.1 * 0.03 / std::sqrt(32.0));
    EXPECT_NEAR(found[6].rms, 0.5 / std::sqrt(32.0), 0.1 * 0.5 / std::sqrt(32.0));
    EXPECT_GE(found[6].condition, 1);
    EXPECT_LT(found[51].condition, 10);
    for (const auto& matrix : diagnostics.measure()) EXPECT_EQ(matrix.update_rms, 0);
}

}  // namespace
}  // namespace speedrun
