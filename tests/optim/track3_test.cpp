// The presets of track 3's results against the published programs in fp64: over tall, wide, square and single
// rows, 20 steps of the result's own schedule.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "config/matrix_rules.h"
#include "ops/optim/orthogonalize.h"
#include "optim/parts/trust_gate.h"
#include "optim/rule.h"
#include "track3.h"

namespace speedrun {
namespace {

using track3_golden::Json;

void without_soap(MatrixConfig& c) {
    c.direction = {};
}

// A case of the file as the program's preset, and what the case leaves out of it.
struct Preset {
    const char* golden;
    const char* rule;
    void (*change)(MatrixConfig&) = nullptr;
    bool gated = false;
    double grad_divisor = 1;
};

const std::vector<Preset>& presets() {
    static const std::vector<Preset> all{
        {"r02_adam", "r02_adamw"},
        {"r04_adamh", "r04_adamh"},
        {"r05_muonh", "r05_muonh"},
        {"r06_muon", "r06_muon"},
        {"r07_muonsq", "r07_muon2"},
        {"r08_normuonh", "r08_normuonh"},
        {"r09_normuon_uwfloor", "r09_normuon_floor"},
        {"r10_normuon", "r10_normuon"},
        {"r11_contra_muon", "r11_contra_muon"},
        {"r14_soap_muon_mlp", "r14_contra_soap_muon"},
        {"r16_soap_muon_trust", "r16_trust_soap_muon", nullptr, true},
        {"r18_pmuon", "r18_pmuon"},
        {"r19_klsoaph", "r19_kl_soaph"},
        {"r21_shampoo", "r21_shampoo"},
        {"r23_muown", "r23_muown", [](MatrixConfig& c) { c.row_norms->steps = 20; }},
        {"r27_soaph", "r27_soaph"},
        {"r28_dynmuon", "r28_dynmuon", nullptr, false, 524288},
        {"r44_scalarfloor_soap", "r44_pinned_soap_muon"},
        {"r46a_core_scalarfloor", "r44_pinned_soap_muon", without_soap},
        {"r46b_rowfloor", "r46_pinned_soap_muon",
         [](MatrixConfig& c) {
             without_soap(c);
             c.weight_decay = 0;
         }},
        {"r46c_rowfloor_cwd", "r46_pinned_soap_muon", without_soap},
        {"r46d_full", "r46_pinned_soap_muon"},
        {"r46e_full_trust", "r46_pinned_soap_muon", nullptr, true}};
    return all;
}

MatrixConfig config_of(const Preset& preset) {
    MatrixConfig config = matrix_defaults(preset.rule);
    config.orthogonalize.dtype = Dtype::fp32;
    if (preset.change) preset.change(config);
    return config;
}

OptimParamConfig row_of(const Preset& preset, const MatrixConfig& config, const std::string& name,
                        const std::vector<int64_t>& shape) {
    OptimParamConfig row;
    row.param = "p";
    row.rule = OptimParamConfig::Rule::matrix;
    row.matrix_view = {1, shape[0], shape[1]};
    row.var_reduce_dim = shape[0] >= shape[1] ? -1 : -2;
    if (preset.gated) row.per_matrix_direction = {"gated"};
    if (config.row_norms && track3_golden::base_of(name) == "wide") row.per_matrix_norm_mul = {3.33333333333};
    return row;
}

// A A^T c / (2 n), A [n, 2n]
at::Tensor full_rank(const std::string& name, int64_t n, double c) {
    const at::Tensor a = track3_golden::drawn(name, {n, 2 * n}, 1).to(at::kFloat).to(at::kDouble);
    return (a.matmul(a.t()) / (2.0 * static_cast<double>(n)) * c).to(at::kFloat).to(at::kDouble);
}

struct Eigen {
    at::Tensor values, vectors;  // by falling value
};

Eigen eigen(const at::Tensor& of) {
    const auto [values, vectors] = at::linalg_eigh(of);
    return {values.flip({0}), vectors.flip({1})};
}

at::Tensor orthonormal(const std::string& name, int64_t n) {
    return std::get<0>(at::linalg_qr(track3_golden::drawn(name, {n, n}, 1).to(at::kFloat).to(at::kDouble)));
}

// The state in which a case starts; its first step is not the rule's first.
void warm_up(const UpdateRule& rule, const MatrixConfig& config, const std::string& name,
             const std::vector<int64_t>& shape) {
    using Kind = MatrixConfig::Direction::Kind;
    const std::string base = track3_golden::base_of(name);
    const auto state = rule.state();
    const auto set = [&](const std::string& part, const at::Tensor& x) {
        const auto found = std::ranges::find(state, part, &StateTensor::name);
        if (found != state.end()) found->tensor.copy_(x.view(found->tensor.sizes()));
    };
    const auto m = static_cast<double>(shape[0]), n = static_cast<double>(shape[1]);
    const Kind kind = config.direction.kind;
    if (kind == Kind::powers && name.ends_with("_natural")) {
        set("cols_basis", orthonormal("randn." + base + ".1", shape[1]));
        set("rows_basis", orthonormal("randn." + base + ".2", shape[0]));
        return;
    }
    const bool kl = kind == Kind::kl_soap;
    const at::Tensor left = full_rank("L." + base, shape[0], kl ? 0.3 : 0.3 * n),
                     right = full_rank("R." + base, shape[1], kl ? 1 : 0.3 * m);
    const Eigen of_left = eigen(left), of_right = eigen(right);
    const at::Tensor momentum = track3_golden::drawn("m." + base, shape, 0.1).to(at::kFloat).to(at::kDouble);
    const golden::Uniform uniform("v." + base);
    at::Tensor moment = at::empty(shape, at::kDouble);
    for (int64_t i = 0; i < moment.numel(); ++i)
        moment.data_ptr<double>()[i] = std::pow(0.4 + 0.2 * uniform(static_cast<uint64_t>(i)), 2);
    set("momentum", momentum);
    set("exp_avg", of_left.vectors.t().matmul(momentum).matmul(of_right.vectors));
    set("exp_avg_sq", moment);
    set("rows_average", left);
    set("cols_average", right);
    set("rows_sum", 10 * left);
    set("cols_sum", 10 * right);
    set("rows_basis", of_left.vectors);
    set("cols_basis", of_right.vectors);
    set("rows_inverse_root", of_left.values.pow(-0.5));
    set("cols_inverse_root", of_right.values.pow(-0.5));
}

void expect_state(const UpdateRule& rule, const Json& want, const std::string& what) {
    const auto state = rule.state();
    for (const auto& [key, figures] : want.items()) {
        const bool squares = key.ends_with("^2");  // bases, whose signs are anybody's choice
        const std::string name = key.substr(0, key.find('^'));
        const auto found = std::ranges::find(state, name, &StateTensor::name);
        ASSERT_NE(found, state.end()) << name;
        track3_golden::expect_figures(squares ? found->tensor.square() : found->tensor, figures,
                                      std::string(what).append(" ").append(key));
    }
}

void expect_case(const Preset& preset, const Json& golden, const std::string& name) {
    const Json& want = golden["cases"][name];
    const MatrixConfig config = config_of(preset);
    const auto shape = want["shape"].get<std::vector<int64_t>>();
    const at::Tensor value = track3_golden::initial(name, shape).unsqueeze(0);
    ParamConfig param;
    param.name = "p";
    param.shape = value.sizes().vec();
    Parameter part{param, value, at::zeros_like(value), value.to(at::kBFloat16)};
    OptimizerConfig optimizer;
    optimizer.matrix = config;
    const auto rule = make_rule(optimizer, row_of(preset, config, name, shape), part);
    const bool powers = config.direction.kind == MatrixConfig::Direction::Kind::powers;
    const bool warm = name.ends_with("_warm") || (powers && name.ends_with("_natural"));
    if (warm) warm_up(*rule, config, name, shape);
    for (int64_t k = 0; k < 20; ++k) {
        const auto at = static_cast<size_t>(k);
        part.grad.copy_(track3_golden::gradient(name, shape, k).unsqueeze(0) / preset.grad_divisor);
        RuleStep step{golden["lr"][at].get<double>() / config.lr,
                      config.momentum.max,
                      k + (warm ? 2 : 1),
                      {},
                      golden["steps"][at].get<int64_t>()};
        if (golden.contains("mu") && golden["mu"].is_array()) step.momentum = golden["mu"][at];
        rule->step(part, step);
        EXPECT_TRUE(part.grad.eq(0).all().item<bool>());
        EXPECT_TRUE(part.used.equal(part.value.to(at::kBFloat16)));
        const std::string shown = std::to_string(k + 1);
        if (want.contains(shown))
            track3_golden::expect_figures(part.value, want[shown],
                                          std::string("weights after ").append(shown));
    }
    expect_state(*rule, want["state"], "state");
}

class Track3 : public ::testing::TestWithParam<size_t> {};

TEST_P(Track3, IsThePublishedProgramInFp64) {
    const Preset& preset = presets()[GetParam()];
    const Json& golden = track3_golden::file()["rules"][preset.golden];
    for (const auto& [name, unused] : golden["cases"].items()) {
        SCOPED_TRACE(std::string(preset.golden).append(", ").append(name));
        expect_case(preset, golden, name);
    }
}

INSTANTIATE_TEST_SUITE_P(Presets, Track3, ::testing::Range(size_t{0}, presets().size()),
                         [](const auto& index) { return std::string(presets()[index.param].golden); });

// Twelve iterations of (2, -1.5, 0.5) on columns from 1 to 0.01, from either norm.
TEST(Track3, NewtonSchulzOfIllConditionedMatrices) {
    for (const auto& [norm_name, cases] : track3_golden::file()["newton_schulz"].items()) {
        MatrixConfig::Orthogonalize config =
            matrix_defaults(norm_name == "schatten4" ? "r46_pinned_soap_muon" : "r36_muon").orthogonalize;
        for (const auto& [name, want] : cases.items()) {
            SCOPED_TRACE(std::string(norm_name).append(", ").append(name));
            const auto shape = want["shape"].get<std::vector<int64_t>>();
            const at::Tensor weights = at::logspace(0, -2, shape[1], 10, at::kDouble).slice(0, 0, shape[1]);
            const at::Tensor x =
                (track3_golden::drawn("ns." + name, shape, 1).to(at::kFloat).to(at::kDouble) * weights)
                    .to(at::kFloat)
                    .unsqueeze(0);
            config.dtype = Dtype::fp32;
            const at::Tensor exact = ops::orthogonalize(x, config);
            track3_golden::expect_figures(exact, want["f32"], "fp32");
            config.dtype = Dtype::bf16;
            // The published program's own bf16 is want["bf16_dist"] from fp64. Other kernels round elsewhere.
            const at::Tensor narrow = ops::orthogonalize(x, config);
            EXPECT_LT((narrow.to(at::kFloat) - exact).norm().item<double>(),
                      1.5 * want["bf16_dist"].get<double>());
        }
    }
}

// What no run of 20 steps shows: the gate of directions that are good, poor and bad, and its bounds by step.
TEST(Track3, TrustGate) {
    const MatrixConfig::Direction::Gate gate = matrix_defaults("r46_pinned_soap_muon").direction.gate;
    MatrixConfig::Direction::Gate open = gate;
    open.floor = 0;
    open.cap = 1;
    const std::map<std::string, double> mixes{{"great", 2.5}, {"good", 0.8}, {"poor", 0.25}, {"bad", -0.3}};
    for (const auto& [key, want] : track3_golden::file()["trust"].items()) {
        SCOPED_TRACE(key);
        const std::string name = key.substr(0, key.find('.')), kind = key.substr(key.rfind('_') + 1);
        const auto shape =
            track3_golden::file()["rules"]["r06_muon"]["cases"][name]["shape"].get<std::vector<int64_t>>();
        const auto draw = [&](const std::string& what) {
            return track3_golden::drawn("u." + what + "." + name, shape, 1).unsqueeze(0);
        };
        const at::Tensor raw = draw("raw"), g = (0.6 * raw + draw("grad")).to(at::kFloat),
                         s = (mixes.at(kind) * raw + 0.5 * draw("soap")).to(at::kFloat),
                         r = raw.to(at::kFloat);
        // Three cosines, then the gate; fp32 sums of 16,384 products at most.
        EXPECT_NEAR(trust(r, s, g, open, 0).item<double>(), want[3].get<double>(), 2e-6);
        size_t at = 4;
        for (const int64_t step : {0, 1374, 1375, 1500, 1624, 1625, 2600})
            EXPECT_NEAR(trust(r, s, g, gate, step).item<double>(), want[at++].get<double>(), 2e-6) << step;
    }
}

}  // namespace
}  // namespace speedrun
