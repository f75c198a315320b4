// Parts of the pipeline on banks of matrices of which each has a treatment of its own.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "compare.h"
#include "config/matrix_rules.h"
#include "ops/optim/matrix_update.h"
#include "optim/rule.h"

namespace speedrun {
namespace {

// A bank of equal or random matrices under one rule, with gradients that follow from the step.
struct Bank {
    Bank(const at::Tensor& matrices, const MatrixConfig& matrix, const OptimParamConfig& extra) {
        OptimizerConfig config;
        config.matrix = matrix;
        OptimParamConfig row = extra;
        row.param = "p";
        row.rule = OptimParamConfig::Rule::matrix;
        row.matrix_view = {matrices.size(0), matrices.size(1), matrices.size(2)};
        row.var_reduce_dim = -1;
        const at::Tensor value = matrices.clone();
        part = {{}, value, at::zeros_like(value), value};
        rule = make_rule(config, row, part);
    }
    void step(const at::Tensor& gradients, int64_t t) {
        part.grad.copy_(gradients);
        rule->step(part, {1, 0.9, t, {}, t - 1});
    }
    Parameter part;
    std::unique_ptr<UpdateRule> rule;
};

OptimParamConfig uses(std::vector<std::string> turn) {
    OptimParamConfig row;
    row.per_matrix_direction = std::move(turn);
    return row;
}

MatrixConfig pinned_soap() {
    MatrixConfig config = matrix_defaults("r46_pinned_soap_muon");
    config.orthogonalize.dtype = Dtype::fp32;
    return config;
}

// In turn, also where matrices go through a step in several groups: more than 16 of this size do.
TEST(Parts, EachMatrixHasItsOwnUseOfTheDirection) {
    at::manual_seed(11);
    const std::vector<std::string> turn{"off", "on", "gated"};
    constexpr int64_t kSide = 512, kMatrices = 18;
    const at::Tensor start = 0.1 * at::randn({kMatrices, kSide, kSide});
    MatrixConfig config = pinned_soap();
    config.orthogonalize.iters = 1;
    config.preconditioner.every_n_steps = 1000;
    Bank all(start, config, uses(turn));
    const std::vector<int64_t> compared{1, 2, 15, 16, 17};
    std::vector<Bank> alone;
    for (const int64_t i : compared)
        alone.emplace_back(start.narrow(0, i, 1), config, uses({turn[static_cast<size_t>(i % 3)]}));
    // Bases without eigenvectors of 36 large matrices: steps then begin with the second.
    const at::Tensor basis = std::get<0>(at::linalg_qr(at::randn({kSide, kSide})));
    const auto give_basis = [&](Bank& bank) {
        for (const StateTensor& state : bank.rule->state())
            if (state.name.ends_with("_basis")) state.tensor.copy_(basis.expand_as(state.tensor));
    };
    give_basis(all);
    for (Bank& bank : alone) give_basis(bank);
    for (int64_t t = 2; t < 4; ++t) {
        const at::Tensor gradients = at::randn({kMatrices, kSide, kSide});
        all.step(gradients, t);
        for (size_t k = 0; k < compared.size(); ++k) alone[k].step(gradients.narrow(0, compared[k], 1), t);
    }
    // Products of several matrices at once may be summed in another order.
    for (size_t k = 0; k < compared.size(); ++k)
        EXPECT_LT(max_difference(all.part.value[compared[k]], alone[k].part.value[0]), 1e-5)
            << "matrix " << compared[k];
}

TEST(Parts, UsesOfADirectionDiffer) {
    at::manual_seed(12);
    const at::Tensor start = 0.1 * at::randn({1, 12, 8});
    std::vector<at::Tensor> values;
    for (const char* use : {"off", "on", "gated"}) {
        Bank bank(start, pinned_soap(), uses({use}));
        at::manual_seed(15);
        for (int64_t t = 1; t < 4; ++t) bank.step(at::randn({1, 12, 8}), t);
        values.push_back(bank.part.value);
    }
    for (const auto& [a, b] : {std::pair{0, 1}, {0, 2}, {1, 2}})
        EXPECT_GT(max_difference(values[static_cast<size_t>(a)], values[static_cast<size_t>(b)]), 1e-4);
}

TEST(Parts, WhatHasNoDirectionKeepsNoStateForIt) {
    const at::Tensor start = at::randn({4, 8, 6});
    const auto bytes = [&](std::vector<std::string> turn) {
        return Bank(start, pinned_soap(), uses(std::move(turn))).rule->state_bytes();
    };
    const int64_t momentum = 4 * 8 * 6 * 4, direction = 4 * 4 * (8 * 6 + 2 * 8 * 8 + 2 * 6 * 6);
    EXPECT_EQ(bytes({}), momentum + direction);
    EXPECT_EQ(bytes({"off", "gated"}), momentum + direction / 2);
    EXPECT_EQ(bytes({"off"}), momentum);
}

TEST(Parts, HyperballKeepsLengths) {
    for (const char* rule : {"r04_adamh", "r05_muonh", "r27_soaph"}) {
        at::manual_seed(13);
        const at::Tensor start = at::randn({3, 12, 8});
        Bank bank(start, matrix_defaults(rule), {});
        for (int64_t t = 1; t < 6; ++t) bank.step(at::randn({3, 12, 8}), t);
        // Ten roundings of a scale.
        EXPECT_LT(
            max_difference(ops::matrix_norms(bank.part.value) / ops::matrix_norms(start), at::ones({3})),
            10 * 0x1p-24)
            << rule;
        EXPECT_GT(max_difference(bank.part.value, start), 1e-3) << rule;
    }
}

// Row lengths of another target, in turn.
TEST(Parts, TargetsOfRowNormsGoInTurn) {
    at::manual_seed(14);
    MatrixConfig config = matrix_defaults("r23_muown");
    config.row_norms->steps = 2;
    OptimParamConfig row;
    row.per_matrix_norm_mul = {1, 3};
    Bank bank(at::randn({4, 5, 8}), config, row);
    for (int64_t t = 1; t < 3; ++t) bank.step(at::randn({4, 5, 8}), t);
    const auto state = bank.rule->state();
    const auto counts = std::ranges::find(state, "row_counts_as", &StateTensor::name);
    ASSERT_NE(counts, state.end());
    for (int64_t i = 0; i < 4; ++i)
        EXPECT_LT(max_difference(counts->tensor[i], at::full({5, 1}, i % 2 == 0 ? 2.496 : 3 * 2.496)), 1e-6);
}

}  // namespace
}  // namespace speedrun
