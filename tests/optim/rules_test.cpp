// Every rule of matrices against the independent references of tests/reference/optimizers.py, whose fp64
// numbers lie in tests/golden/optimizers.json.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "config/matrix_rules.h"
#include "model/load_config.h"
#include "optim/rule.h"
#include "support/golden_inputs.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

using Json = nlohmann::json;

const Json& golden_file() {
    static const Json file = Json::parse(std::ifstream(SPEEDRUN_SOURCE_DIR "/tests/golden/optimizers.json"));
    return file;
}

// What a case says of a config's section, through the config's own reader.
MatrixConfig read_matrix(const Json& golden) {
    const TemporaryFolder folder;
    const Json config{{"extends", SPEEDRUN_SOURCE_DIR "/configs/record_43.json"},
                      {"optimizer", {{"matrix", golden["matrix"]}}}};
    std::ofstream(folder / "case.json") << config.dump();
    MatrixConfig matrix = load_config(folder / "case.json").optimizer.matrix;
    if (golden.contains("max_size")) matrix.preconditioner.max_size = golden["max_size"];
    return matrix;
}

at::Tensor entries(const std::string& name, int64_t rows, int64_t cols) {
    const golden::Uniform uniform(name);
    at::Tensor out = at::empty({rows, cols}, at::kDouble);
    for (int64_t i = 0; i < rows * cols; ++i)
        out.data_ptr<double>()[i] = 2 * uniform(static_cast<uint64_t>(i)) - 1;
    return out;
}

at::Tensor gradient(const Json& input, int64_t step) {
    const auto rows = input["rows"].get<int64_t>(), cols = input["cols"].get<int64_t>();
    const std::string kind = input["kind"],
                      seed = input["name"].get<std::string>() + "." + std::to_string(step);
    if (kind == "zero" || (kind == "stops" && step > 5) || (kind == "starts" && step == 1))
        return at::zeros({rows, cols});
    if (kind == "rank 2")
        return entries(seed + ".left", rows, 2).matmul(entries(seed + ".right", 2, cols)).to(at::kFloat);
    return entries(seed, rows, cols).to(at::kFloat);
}

at::Tensor initial(const Json& input) {
    return (0.1 * entries(input["name"], input["rows"].get<int64_t>(), input["cols"].get<int64_t>()))
        .to(at::kFloat);
}

// Three equal matrices, so that several are in a part.
constexpr int64_t kMatrices = 3;

Parameter parameter_of(const at::Tensor& matrix, at::ScalarType dtype) {
    const at::Tensor value = matrix.to(dtype).unsqueeze(0).repeat({kMatrices, 1, 1});
    ParamConfig config;
    config.name = "p";
    config.shape = value.sizes().vec();
    return {config, value, at::zeros_like(value), value.to(at::kBFloat16, false, true)};
}

OptimParamConfig row_of(const Parameter& part, const MatrixConfig& matrix) {
    using SecondMoment = MatrixConfig::SecondMoment;
    const auto rows = part.value.size(1), cols = part.value.size(2);
    const bool over_cols = matrix.second_moment == SecondMoment::rows ||
                           (matrix.second_moment == SecondMoment::longer_side && rows >= cols);
    OptimParamConfig row;
    row.param = "p";
    row.rule = OptimParamConfig::Rule::matrix;
    row.matrix_view = {part.value.size(0), rows, cols};
    row.var_reduce_dim = over_cols ? -1 : -2;
    return row;
}

std::unique_ptr<UpdateRule> rule_of(const MatrixConfig& matrix, const Parameter& part) {
    OptimizerConfig config;
    config.matrix = matrix;
    return make_rule(config, row_of(part, matrix), part);
}

// The basis of a null space is anybody's choice: SOAP goes on from the reference's.
void take_basis(const UpdateRule& rule, const Json& run) {
    if (!run.contains("basis")) return;
    size_t side = 0;
    for (const char* name : {"rows_basis", "cols_basis"}) {
        const auto state = rule.state();
        const auto found = std::ranges::find(state, name, &StateTensor::name);
        const Json& basis = run["basis"][side++];
        ASSERT_EQ(found == state.end(), basis.is_null());
        if (basis.is_null()) continue;
        const auto values = basis.get<std::vector<double>>();
        found->tensor.copy_(at::tensor(values, at::kDouble).view(found->tensor.sizes().slice(1)));
    }
}

struct Distances {
    double worst = 0;     // of an entry
    double relative = 0;  // of all that the steps did, in the norm
};

// After the steps that the file shows.
Distances distance(const MatrixConfig& matrix, const Json& input, const Json& run, at::ScalarType dtype) {
    const at::Tensor start = initial(input);
    Parameter part = parameter_of(start, dtype);
    const auto rule = rule_of(matrix, part);
    Distances found;
    for (int64_t t = 1; t <= golden_file()["steps"]; ++t) {
        part.grad.copy_(gradient(input, t));
        rule->step(part, {1 - 0.02 * static_cast<double>(t), matrix.momentum.max, t});
        EXPECT_TRUE(part.grad.eq(0).all().item<bool>());
        EXPECT_TRUE(part.used.equal(part.value.to(at::kBFloat16)));
        if (t == 1) take_basis(*rule, run);
        const std::string shown = std::to_string(t);
        if (!run["values"].contains(shown)) continue;
        const at::Tensor want = at::tensor(run["values"][shown].get<std::vector<double>>(), at::kDouble);
        const at::Tensor difference = part.value.to(at::kDouble).view({kMatrices, -1}) - want;
        found.worst = std::max(found.worst, difference.abs().max().item<double>());
        const double moved = (want - start.to(at::kDouble).view(-1)).norm().item<double>();
        const double apart = difference.norm(2, {1}).max().item<double>();
        found.relative = std::max(found.relative, apart / std::max(moved, 1e-30));
    }
    return found;
}

class Rules : public ::testing::TestWithParam<size_t> {
  protected:
    const Json& golden() const { return golden_file()["cases"][GetParam()]; }

    template <class Check>
    void for_each_input(const Check& check) const {
        for (const Json& input : golden_file()["inputs"]) {
            SCOPED_TRACE(golden()["name"].get<std::string>() + ", " + input["name"].get<std::string>());
            check(input, golden()["runs"][input["name"].get<std::string>()]);
        }
    }
};

// What may be lost. `relative` is of the distance that the steps go in all, `worst` of one entry where they
// go nearly nowhere.
struct Band {
    double relative, worst;
};

void expect_within(const Distances& found, const Band& band, const std::string& what) {
    EXPECT_TRUE(found.relative < band.relative || found.worst < band.worst)
        << what << ": an entry " << found.worst << " apart, relative to the distance gone " << found.relative;
}

// The polynomials multiply a small singular value's rounding error by up to 990 (see orthogonalize_test):
// 6e-8 * 990. The iteration of the running root by 1.5^15 = 437, twice, where a singular value is next to 0:
// measured 1.2e-3 where the gradient has rank 2, 1.6e-4 where it is square.
Band fp32_band(const MatrixConfig& matrix) {
    const bool root = matrix.orthogonalize.method == MatrixConfig::Orthogonalize::Method::preconditioner;
    return {root ? 3e-3 : 6e-5, 3e-8};
}

// Measured. Rounding to bf16 gives singular values to a matrix that has not got them, and five or six
// iterations bring them halfway to 1: of rank 2 out of 8 up to 0.84. A row or column is its own direction,
// and five iterations of Polar Express end on either side of 1 by how its norm is rounded: up to 0.23. All
// others: up to 0.064.
Band bf16_band(const Json& input) {
    const std::string name = input["name"];
    const double relative = name == "rank 2" ? 0.9 : name == "row" || name == "column" ? 0.3 : 0.08;
    // Without gradients there is only decay; twenty roundings of values below 1/8, by 2^-12 at most.
    return {relative, name == "zero" ? 20 * 0x1p-12 : 0};
}

TEST_P(Rules, Fp32IsTheReferenceToRounding) {
    MatrixConfig matrix = read_matrix(golden());
    matrix.orthogonalize.dtype = Dtype::fp32;
    for_each_input([&](const Json& input, const Json& run) {
        expect_within(distance(matrix, input, run, at::kFloat), fp32_band(matrix), "fp32");
    });
}

TEST_P(Rules, Bf16StaysInItsBand) {
    const MatrixConfig matrix = read_matrix(golden());
    for_each_input([&](const Json& input, const Json& run) {
        expect_within(distance(matrix, input, run, at::kFloat), bf16_band(input), "bf16 iterations");
        expect_within(distance(matrix, input, run, at::kBFloat16), bf16_band(input), "bf16 parameters");
    });
}

INSTANTIATE_TEST_SUITE_P(Golden, Rules, ::testing::Range(size_t{0}, golden_file()["cases"].size()));

}  // namespace
}  // namespace speedrun
