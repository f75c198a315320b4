// What holds for every rule of matrices: shards are parts of the whole, state is all there is, and odd
// gradients do no harm.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "compare.h"
#include "small_run.h"

namespace speedrun {
namespace {

// One of many ranks, whose gradients are sums already and whose results nobody asks for.
class LoneRank final : public Communicator {
  public:
    LoneRank(int64_t rank, int64_t world_size)
        : rank_(rank), world_size_(world_size), self_(make_self_communicator()) {}
    int64_t rank() const override { return rank_; }
    int64_t world_size() const override { return world_size_; }
    Handle reduce_scatter(const at::Tensor&, std::span<const int64_t>, std::string_view) override {
        return done();
    }
    Handle all_gather(const at::Tensor&, std::span<const int64_t>, std::string_view) override {
        return done();
    }
    Handle all_reduce(const at::Tensor&, ReduceOp, std::string_view) override { return done(); }
    Handle broadcast(const at::Tensor&, int64_t, std::string_view) override { return done(); }
    Handle all_to_all(const at::Tensor&, std::span<const int64_t>, const at::Tensor&,
                      std::span<const int64_t>, std::string_view) override {
        return {};
    }
    void barrier(std::string_view) override {}
    CommStats stats() const override { return {}; }
    void observe(CollectiveObserver*) override {}

  private:
    Handle done() { return self_->broadcast({}, 0, {}); }

    int64_t rank_, world_size_;
    std::unique_ptr<Communicator> self_;
};

class EveryRule : public ::testing::TestWithParam<const char*> {
  protected:
    Config config() const {
        Config run = small_run(GetParam());
        run.optimizer.matrix.preconditioner.every_n_steps = 2;  // where there is one
        return run;
    }
    // What three steps may do that go nowhere: Muown puts rows together again from lengths and directions,
    // with four roundings a step.
    static double rounding_at_rest(const at::Tensor& values) {
        const bool rows = matrix_defaults(GetParam()).row_norms.has_value();
        return rows ? 3 * 4 * 0x1p-24 * values.abs().max().item<double>() : 0;
    }
};

// With 64 ranks most own nothing of most buckets.
TEST_P(EveryRule, ShardedIsUnsharded) {
    SmallRun whole(config());
    for (int64_t i = 0; i < 4; ++i) whole.step(i);
    std::map<std::string, at::Tensor> want;
    for (const NamedTensor& part : whole.optimizer.state()) want[part.name] = part.tensor.view(-1);
    for (const int64_t world : {2, 4, 64}) {
        int64_t owned = 0;
        for (int64_t rank = 0; rank < world; rank += world == 64 ? 21 : 1) {
            SmallRun run(config(), std::make_unique<LoneRank>(rank, world));
            for (int64_t i = 0; i < 4; ++i) run.step(i);
            for (const NamedTensor& part : run.optimizer.owned_values()) {
                const at::Tensor all = whole.table[part.name].value.view(-1);
                const at::Tensor its = all.narrow(0, part.begin, part.tensor.numel());
                // Products of several matrices at once may be summed in another order.
                EXPECT_LT(max_difference(part.tensor.view(-1), its),
                          its.scalar_type() == at::kFloat ? 1e-5 : 1e-2)
                    << part.name << " of rank " << rank << " of " << world;
                owned += part.tensor.numel();
            }
            for (const NamedTensor& part : run.optimizer.state())
                EXPECT_EQ(part.tensor.numel(),
                          want.at(part.name).narrow(0, part.begin, part.tensor.numel()).numel());
        }
        if (world < 64) {
            EXPECT_EQ(owned, whole.table.count());
        }
    }
}

TEST_P(EveryRule, StateRestoresARunExactly) {
    SmallRun a(config()), b(config());
    for (int64_t i = 0; i < 3; ++i) a.step(i);
    const auto from = a.optimizer.state(), to = b.optimizer.state();
    const auto global = a.optimizer.global_state();
    ASSERT_EQ(from.size(), to.size());
    ASSERT_EQ(from.size(), global.size());
    std::set<std::string> names;
    for (size_t i = 0; i < from.size(); ++i) {
        EXPECT_EQ(from[i].name, to[i].name);
        EXPECT_TRUE(names.insert(from[i].name).second) << from[i].name;
        to[i].tensor.copy_(from[i].tensor);
        const auto& same = *std::ranges::find(global, from[i].name, &GlobalTensor::name);
        EXPECT_EQ(same.dtype, from[i].tensor.scalar_type()) << same.name;
        EXPECT_EQ(at::empty(same.shape).numel(), from[i].tensor.numel()) << same.name;
    }
    for (size_t i = 0; i < a.table.all().size(); ++i) {
        b.table.all()[i].value.copy_(a.table.all()[i].value);
        b.table.all()[i].grad.copy_(a.table.all()[i].grad);
    }
    for (int64_t i = 3; i < 6; ++i) {
        a.step(i);
        b.step(i);
    }
    for (const Parameter& p : a.table.all())
        EXPECT_TRUE(p.value.equal(b.table[p.config.name].value)) << p.config.name;
}

TEST_P(EveryRule, ResetForgetsEverything) {
    SmallRun a(config()), b(config());
    for (int64_t i = 0; i < 3; ++i) a.step(i);
    a.optimizer.reset();
    a.table.zero_grad();
    initialize(a.table, a.config.model, 1);
    for (int64_t i = 0; i < 2; ++i) {
        a.step(i);
        b.step(i);
    }
    for (const Parameter& p : a.table.all())
        EXPECT_TRUE(p.value.equal(b.table[p.config.name].value)) << p.config.name;
}

TEST_P(EveryRule, LearningRateZeroChangesNothing) {
    Config run = config();
    run.optimizer.matrix.lr = 0;
    run.optimizer.matrix.decay = MatrixConfig::Decay::decoupled;
    run.optimizer.matrix.weight_decay = 1;
    SmallRun a(run);
    const at::Tensor before = a.table["mlp_fc"].value.clone();
    for (int64_t i = 0; i < 3; ++i) a.step(i);
    EXPECT_LE(max_difference(a.table["mlp_fc"].value, before), rounding_at_rest(before));
}

// All zero from the start, and again after real gradients: nothing becomes infinite or NaN.
TEST_P(EveryRule, ZeroGradients) {
    SmallRun run(config());
    const at::Tensor before = run.table["attn_qkvo"].value.clone();
    StepSettings settings;
    settings.muon_momentum = 0.9;
    for (int64_t i = 0; i < 3; ++i) run.optimizer.step(settings);
    if (run.config.optimizer.matrix.weight_decay == 0) {
        EXPECT_LE(max_difference(run.table["attn_qkvo"].value, before), rounding_at_rest(before));
    }
    run.step(0);
    for (int64_t i = 0; i < 3; ++i) run.optimizer.step(settings);
    for (const Parameter& p : run.table.all())
        EXPECT_TRUE(p.value.isfinite().all().item<bool>()) << p.config.name;
}

TEST_P(EveryRule, SkippedStepsLeaveNothingBehind) {
    SmallRun run(config());
    for (int64_t i = 0; i < 2; ++i) run.step(i);
    std::vector<at::Tensor> before;
    for (const Parameter& p : run.table.all()) before.push_back(p.value.clone());
    for (const auto& part : run.optimizer.state()) before.push_back(part.tensor.clone());
    run.add_gradients(2);
    run.table["mlp_fc"].grad.view(-1)[5] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_FALSE(gradients_are_finite(run.optimizer));
    run.optimizer.skip();
    size_t next = 0;
    for (const Parameter& p : run.table.all()) EXPECT_TRUE(p.value.equal(before[next++])) << p.config.name;
    for (const auto& part : run.optimizer.state())
        EXPECT_TRUE(part.tensor.equal(before[next++])) << part.name;
}

TEST_P(EveryRule, HasACost) {
    const Config run = config();
    const auto& row = *std::ranges::find(run.optimizer.params, "mlp_fc", &OptimParamConfig::param);
    const auto rule = make_meta_rule(run.optimizer, row, run.model.param("mlp_fc"), at::kFloat);
    // Adam's relatives alone multiply no matrices.
    const std::set<std::string> without_products{"adamw", "sgd", "r02_adamw", "r04_adamh"};
    EXPECT_EQ(rule->cost(true).flop > 0, !without_products.contains(GetParam()));
    EXPECT_GT(rule->cost(true).work_bytes, 0);
    EXPECT_GE(rule->cost(false).work_bytes, rule->cost(true).work_bytes);
    EXPECT_GT(rule->state_bytes(), 0);
}

std::vector<const char*> names() {
    std::vector<const char*> all;
    for (const MatrixRule& rule : matrix_rules) all.push_back(rule.name);
    return all;
}

INSTANTIATE_TEST_SUITE_P(All, EveryRule, ::testing::ValuesIn(names()),
                         [](const auto& rule) { return std::string(rule.param); });

}  // namespace
}  // namespace speedrun
