// The rule of matrices chooses its parts; what a config says beside it wins.
#include "config/matrix_rules.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "config/config_testing.h"

namespace speedrun {
namespace {

using Orthogonalize = MatrixConfig::Orthogonalize;

Config with_rule(const std::string& rule, Overrides overrides = {}) {
    overrides.insert(overrides.begin(), "optimizer.matrix.rule=" + rule);
    return load(quickstart, overrides);
}

const OptimParamConfig& row_of(const Config& config, const std::string& param) {
    return *std::ranges::find(config.optimizer.params, param, &OptimParamConfig::param);
}

TEST(MatrixRules, EachIsOneKey) {
    const ConfigFiles files;
    for (const MatrixRule& rule : matrix_rules) {
        SCOPED_TRACE(rule.name);
        const Config config = rule.name == std::string("normuon") ? load(quickstart) : with_rule(rule.name);
        EXPECT_EQ(config.optimizer.matrix.rule, rule.name);
        EXPECT_GT(config.optimizer.matrix.lr, 0);
        const MatrixConfig own = matrix_defaults(rule.name), &read = config.optimizer.matrix;
        EXPECT_EQ(read.orthogonalize.coefficients, own.orthogonalize.coefficients);
        EXPECT_EQ(read.orthogonalize.power.has_value(), own.orthogonalize.power.has_value());
        EXPECT_EQ(read.row_norms.has_value(), own.row_norms.has_value());
        const Config again = load(files.write("resolved.json", config.resolved_json));
        EXPECT_EQ(again.resolved_json, config.resolved_json);
    }
}

TEST(MatrixRules, AnotherRuleTakesNothingFromTheParents) {
    const MatrixConfig parents = load(quickstart).optimizer.matrix, muon = with_rule("muon").optimizer.matrix;
    EXPECT_EQ(parents.weight_decay, 1.2);
    EXPECT_EQ(muon.weight_decay, 0);
    EXPECT_EQ(muon.lr, 0.02);
    EXPECT_EQ(muon.orthogonalize.method, Orthogonalize::Method::newton_schulz);
    EXPECT_EQ(muon.momentum.warmup_steps, 0);
    const MatrixConfig same = with_rule("normuon").optimizer.matrix;
    EXPECT_EQ(same.weight_decay, 1.2);
    EXPECT_EQ(same.momentum.warmup_steps, 50);
}

TEST(MatrixRules, PartsBesideTheRuleWinInAnyOrder) {
    const ConfigFiles files;
    const std::string lr = "optimizer.matrix.lr=0.125", rule = "optimizer.matrix.rule=muon";
    for (const Overrides& overrides : {Overrides{lr, rule}, Overrides{rule, lr}}) {
        const MatrixConfig matrix = load(quickstart, overrides).optimizer.matrix;
        EXPECT_EQ(matrix.rule, "muon");
        EXPECT_EQ(matrix.lr, 0.125);
    }
    const Config child = load(files.child(
        R"("optimizer": {"matrix": {"lr": 0.5, "rule": "adamuon", "orthogonalize": {"iters": 7}}})"));
    EXPECT_EQ(child.optimizer.matrix.lr, 0.5);
    EXPECT_EQ(child.optimizer.matrix.orthogonalize.iters, 7);
    EXPECT_EQ(child.optimizer.matrix.beta2, 0.995);
    EXPECT_EQ(child.optimizer.matrix.momentum.form, MatrixConfig::Momentum::Form::accumulate);
}

// The up-projection is stored [in, out], so its row says that its neurons are columns.
TEST(MatrixRules, AxisOfTheSecondMoment) {
    const Config columns = load(quickstart), rows = with_rule("normuon_paper");
    for (const char* param : {"attn_qkvo", "mlp_proj", "attn_gate"}) {
        EXPECT_EQ(row_of(columns, param).var_reduce_dim, -2);
        EXPECT_EQ(row_of(rows, param).var_reduce_dim, -1);
    }
    EXPECT_EQ(row_of(rows, "mlp_fc").var_reduce_dim, -2);
    const Config longer = load(quickstart, {"optimizer.matrix.second_moment=longer_side"});
    EXPECT_EQ(row_of(longer, "mlp_proj").var_reduce_dim, -2);   // 256 x 1024
    EXPECT_EQ(row_of(longer, "attn_qkvo").var_reduce_dim, -1);  // square
}

TEST(MatrixRules, Mistakes) {
    const auto expect = [](const Overrides& overrides, std::initializer_list<std::string> parts) {
        expect_user_error([&] { load(quickstart, overrides); }, parts);
    };
    expect({"optimizer.matrix.rule=muonn"},
           {"optimizer.matrix.rule: not one of the choices; found \"muonn\"", "adamuon", "\"muon\""});
    expect({"optimizer.matrix.rule=null"}, {"optimizer.matrix.rule: required key is null"});
    expect({"optimizer.matrix.rule=adamw", "optimizer.matrix.orthogonalize.iters=3"},
           {"optimizer.matrix.orthogonalize: key without a meaning beside the others here"});
    expect({"optimizer.matrix.rule=muon", "optimizer.matrix.preconditioner.beta=0.5"},
           {"optimizer.matrix.preconditioner: key without a meaning"});
    expect({"optimizer.matrix.rule=soap", "optimizer.matrix.preconditioner.max_size=8"},
           {"optimizer.params.attn_qkvo.matrix_view: soap has no side to precondition; found [40,256,256]",
            "at most optimizer.matrix.preconditioner.max_size = 8"});
    expect({"optimizer.matrix.rule=soap", "optimizer.matrix.preconditioner.beta=1"},
           {"preconditioner.beta: only shampoo sums"});
    expect({"optimizer.matrix.rule=mommuon", "optimizer.matrix.orthogonalize.dtype=bf16"},
           {"optimizer.matrix.orthogonalize.dtype: the preconditioner's iteration needs fp32"});
    expect({"optimizer.params.scalars.optim=matrix", "optimizer.params.scalars.matrix_view=[64,1,1]"},
           {"optimizer.params.scalars.optim: the parameter holds no matrices", "[64]", "allowed: adam"});
    expect({"optimizer.matrix.rule=sgd", "optimizer.matrix.weight_decay=0.1"},
           {"optimizer.matrix.weight_decay: has no effect with decay none"});
}

TEST(MatrixRules, MistakesOfParts) {
    const auto expect = [](const std::string& rule, Overrides overrides,
                           std::initializer_list<std::string> parts) {
        SCOPED_TRACE(overrides.front());
        overrides.insert(overrides.begin(), "optimizer.matrix.rule=" + rule);
        expect_user_error([&] { load(quickstart, overrides); }, parts);
    };
    const std::string soap = "r46_pinned_soap_muon", row = "optimizer.params.attn_qkvo.";
    expect(soap, {row + R"(per_matrix_direction=["on","of"])"},
           {row + "per_matrix_direction: no such use of a direction", "\"off\""});
    expect(soap, {row + R"(per_matrix_direction=["on","off","off"])"},
           {row + "per_matrix_direction: does not go evenly", "3 of them", "a divisor of 4"});
    expect("r36_muon", {row + R"(per_matrix_direction=["off"])"},
           {row + "per_matrix_direction: only the direction soap can be left out"});
    expect("r36_muon", {row + "per_matrix_norm_mul=[2]"},
           {row + "per_matrix_norm_mul: multiplies optimizer.matrix.row_norms"});
    expect("r19_kl_soaph", {"optimizer.matrix.preconditioner.max_size=256"},
           {"optimizer.params.mlp_fc.matrix_view: r19_kl_soaph has a matrix of each side", "a side of 1024"});
    expect("r36_muon", {"optimizer.matrix.orthogonalize.coefficients=[1,2,3,4]"},
           {"optimizer.matrix.orthogonalize.coefficients: an iteration has three; found 4 numbers"});
    expect("r02_adamw", {"optimizer.matrix.contra=0.2"},
           {"optimizer.matrix.contra: needs an iteration that orthogonalises"});
    expect("r23_muown", {"optimizer.matrix.length.kind=hyperball"},
           {"optimizer.matrix.row_norms: makes a step of its own"});
    expect("adamw", {"optimizer.matrix.decay=cautious_last"},
           {"optimizer.matrix.decay: adamw has no such decay; found cautious_last"});
    expect(soap, {"optimizer.matrix.direction.gate.floor=0.9"},
           {"optimizer.matrix.direction.gate.floor: lies above the cap; found 0.9"});
    expect(soap, {"optimizer.matrix.direction.gate.floor_end=3"},
           {"optimizer.matrix.direction.gate.floor_end: lies before floor_until"});
    expect("r36_muon", {"optimizer.matrix.direction.beta2=0.5"},
           {"optimizer.matrix.direction.beta2: key without"});
}

}  // namespace
}  // namespace speedrun
