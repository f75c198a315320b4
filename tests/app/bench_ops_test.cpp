// `speedrun bench ops`: its rows, their floors, and the verb on the golden model.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "app/bench/counted_graphs.h"
#include "app/bench/ops/rows.h"
#include "app/bench/timing.h"
#include "plan/throughput.h"
#include "support/function_graphs.h"
#include "support/mpirun.h"

namespace speedrun {
namespace {

using Json = nlohmann::json;

const std::string golden_config = SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json";
const std::string record_config = SPEEDRUN_SOURCE_DIR "/configs/record_43.json";

Op op(const std::string& name, double per_step, double flop, double bytes, const std::string& within = "") {
    return {
        .name = name, .shape = "2x3", .per_step = per_step, .within = within, .flop = flop, .bytes = bytes};
}

constexpr MachineRates kRates{.flops = 1e9, .bandwidth = 1e8};

TEST(OpTable, AFloorIsTheLongerOfArithmeticAndMemory) {
    EXPECT_DOUBLE_EQ(floor_ms(op("a", 1, 3e6, 1e5), kRates), 3);
    EXPECT_DOUBLE_EQ(floor_ms(op("b", 1, 3e6, 1e6), kRates), 10);
}

TEST(OpTable, PartsOfAnotherOpAreNotCountedAgain) {
    const std::vector<TimedOp> ops{
        {op("whole", 2, 4e6, 0), 5}, {op("part", 2, 4e6, 0, "whole"), 4}, {op("rare", 0.5, 0, 1e6), 20}};
    const StepSum sum = sum_of_step(ops, kRates);
    EXPECT_DOUBLE_EQ(sum.ms, 2 * 5 + 0.5 * 20);
    EXPECT_DOUBLE_EQ(sum.floor_ms, 2 * 4 + 0.5 * 10);
}

TEST(OpTable, SaysAllOfItInTextAndJson) {
    const std::vector<TimedOp> ops{{op("whole", 2, 4e6, 0), 5}, {op("part", 2, 2e6, 0, "whole"), 250}};
    EXPECT_EQ(ops_text(ops, kRates),
              "op             shape  a step     ms  floor, ms  of the floor  ms a step\n"
              "whole            2x3       2   5.00       4.00          80 %      10.00\n"
              "part             2x3     (2)  250.0       2.00           1 %\n"
              "all of a step                             8.00          80 %      10.00\n");
    const Json json = Json(ops_json(ops, kRates));
    EXPECT_EQ(json["ops"][1]["within"], "whole");
    EXPECT_EQ(json["ops"][0]["floor_ms"], 4.0);
    EXPECT_FALSE(json["ops"][0].contains("within"));
    EXPECT_EQ(json["step"], (Json{{"ms", 10.0}, {"floor_ms", 8.0}}));
}

// On a GPU; what cannot be recorded cannot be counted.
TEST(OpTable, HasAColumnOfKernels) {
    const std::vector<TimedOp> ops{{op("whole", 2, 4e6, 0), 5, 3},
                                   {op("part", 2, 4e6, 0, "whole"), 5, 2},
                                   {op("rule", 1, 4e6, 0), 5, {}}};
    EXPECT_EQ(ops_text(ops, kRates),
              "op             shape  a step    ms  floor, ms  of the floor  ms a step  kernels\n"
              "whole            2x3       2  5.00       4.00          80 %      10.00        3\n"
              "part             2x3     (2)  5.00       4.00          80 %                   2\n"
              "rule             2x3       1  5.00       4.00          80 %       5.00        ?\n"
              "all of a step                           12.00          80 %      15.00        6\n");
    const Json json = Json(ops_json(ops, kRates));
    EXPECT_EQ(json["ops"][0]["kernels"], 3);
    EXPECT_FALSE(json["ops"][2].contains("kernels"));
    EXPECT_EQ(json["step"]["kernels"], 6.0);
}

TEST(CountedGraphs, CountWhatLaunchesStart) {
    const auto functions = std::make_shared<FunctionGraphs>();  // of one kernel each
    CountedGraphs counted(functions);
    const auto a = counted.make(), b = counted.make();
    int64_t calls = 0;
    for (const auto& graph : {&a, &b}) (*graph)->record([&] { ++calls; });
    EXPECT_EQ(counted.launches(), 0);
    for (int i = 0; i < 3; ++i) a->launch();
    b->launch();
    EXPECT_EQ(calls, 4);
    EXPECT_EQ(counted.launches(), 4);
    EXPECT_EQ(counted.kernels(), 4);
}

TEST(VisiblePairs, AreThoseThatTheMaskLetsThrough) {
    const std::vector<int32_t> starts{0, 1, 8, 8, 30, 30};
    for (const int64_t window : {0, 1, 5, 21, 22, 1000}) {
        int64_t pairs = 0;
        for (size_t k = 0; k + 1 < starts.size(); ++k)
            for (int64_t query = starts[k]; query < starts[k + 1]; ++query)
                for (int64_t key = starts[k]; key <= query; ++key) pairs += query - key <= window ? 1 : 0;
        EXPECT_EQ(visible_pairs(starts, window), pairs) << window;
    }
}

// Counted by hand in record_42.json: layer 0 is skipped, layer 7 has no attention, 6 to 10 have an entry mix,
// and 1, 2, 9, 10, 11 take a value embedding.
TEST(PlanCounts, AreThoseOfRecord43) {
    const PlanCounts counts = plan_counts(load_config(record_config).model);
    EXPECT_EQ(counts.short_windows, 8);
    EXPECT_EQ(counts.long_windows, 2);
    EXPECT_EQ(counts.gates, 10);
    EXPECT_EQ(counts.mlps, 11);
    const std::map<MixKind, double> mixes{
        {{.sources = 1}, 5}, {{.sources = 2}, 5 + 5 + 11}, {{.sources = 2, .with_norm = true}, 11 + 10 + 1}};
    EXPECT_EQ(counts.mixes, mixes);
    EXPECT_EQ(counts.norm_backwards, 1 + 22);
    const std::map<MixKind, double> backwards{{{.sources = 1, .trained = 1, .passed = 1}, 5},
                                              {{.sources = 2, .trained = 1, .passed = 1}, 5 + 1},
                                              {{.sources = 2, .trained = 2, .passed = 2}, 11 + 5}};
    EXPECT_EQ(counts.mix_backwards, backwards);
}

struct Rows {
    explicit Rows(const std::string& file, at::Device device)
        : config(load_config(file)),
          settings(settings_at(config, 0)),
          batch(synthetic_batch(config, config.data.micro_batch_tokens, 400)),
          pass(config, settings, batch, device) {}
    Config config;
    StepSettings settings;
    Batch batch;
    PassShapes pass;
};

// Every call at record 43's full size: on the meta device ops look at shapes and do nothing.
TEST(StepOps, HaveTensorsThatTheOpsTake) {
    const Rows rows(record_config, at::kMeta);
    for (const auto& ops : {element_ops(rows.pass), product_ops(rows.pass)})
        for (const Op& op : ops) EXPECT_NO_THROW(op.prepare()()) << op.name;
}

TEST(StepOps, AddUpToTheFlopOfAStep) {
    const Rows rows(record_config, at::kMeta);
    double gemms = 0, inside = 0, attention = 0;
    for (const Op& op : product_ops(rows.pass)) {
        if (op.name.starts_with("attention"))
            attention += op.per_step * op.flop;
        else
            (op.within.empty() ? gemms : inside) += op.per_step * op.flop;
    }
    const auto tokens = static_cast<double>(rows.settings.batch_tokens);
    EXPECT_DOUBLE_EQ(gemms, tokens * gemm_flop_per_token(rows.config.model));
    EXPECT_DOUBLE_EQ(inside, tokens * 6 * 50304 * 768);
    const auto pairs = [&](int64_t window) {
        return static_cast<double>(visible_pairs(rows.batch.cu_seqlens, window));
    };
    // Eight micro-batches; 4 forward and 8 backward for each pair and channel.
    EXPECT_DOUBLE_EQ(
        attention,
        8 * 12 * 768 * (8 * pairs(rows.settings.window_short) + 2 * pairs(rows.settings.window_long)));
}

TEST(StepOps, HaveTheUpdateOfEveryParameterWithItsCadence) {
    const Config config = load_config(record_config);
    std::map<std::string, double> whole;
    for (const Op& op : optimizer_ops(config, settings_at(config, 0), at::kCPU))
        if (op.within.empty()) whole[op.name] = op.per_step;
    const std::map<std::string, double> expected{
        {"adam.embed", 0.5},     {"adam.value_embeds", 0.5}, {"adam.lm_head", 0.5},
        {"adam.scalars", 0.5},   {"matrix.smear_gate", 1},   {"matrix.attn_qkvo", 1},
        {"matrix.attn_gate", 1}, {"matrix.mlp_fc", 1},       {"matrix.mlp_proj", 1}};
    EXPECT_EQ(whole, expected);
}

const std::string verb =
    std::string(SPEEDRUN_EXECUTABLE) + " bench ops --device cpu --ms 5 --set runtime.threads=1 ";

TEST(BenchOpsVerb, TimesEveryOpOfTheGoldenModel) {
    const JobResult result = run_command(verb + "--json --config " + golden_config, 120);
    ASSERT_EQ(result.exit_code, 0) << result.output;
    const Json json = Json::parse(result.output);
    EXPECT_EQ(json["tokens"], 256);
    EXPECT_EQ(json["micro_batches"], 8.0);
    std::map<std::string, double> counts;
    for (const Json& row : json["ops"]) {
        EXPECT_GT(row["ms"].get<double>(), 0) << row;
        EXPECT_GT(row["floor_ms"].get<double>(), 0) << row;
        counts[row["op"]] = row["per_step"];
    }
    for (const char* name : {"embedding.backward", "smear", "norm", "mix2.norm", "mix2.backward", "rotary",
                             "gate.backward", "relu2", "gemm.qkv.dgrad", "gemm.fc.wgrad", "head_loss",
                             "adam.embed", "matrix.attn_qkvo", "matrix.mlp_fc.orthogonalize"})
        EXPECT_EQ(counts.count(name), 1U) << name;
    // Windows of 8 tokens a block: 1 and 3 in the first stage, with eight layers and two.
    EXPECT_EQ(counts["attention.forward.w8"], 8 * 8);
    EXPECT_EQ(counts["attention.backward.w24"], 2 * 8);
    EXPECT_EQ(counts["attention.forward.w40"], 0);
    EXPECT_EQ(counts["rotary"], 8 * 20);
    EXPECT_GT(json["step"]["ms"].get<double>(), 0);
}

TEST(BenchOpsVerb, TakesOnlyThoseThatBeginSo) {
    const JobResult result = run_command(verb + "--only relu2 --config " + golden_config);
    ASSERT_EQ(result.exit_code, 0) << result.output;
    EXPECT_NE(result.output.find("\nrelu2.backward "), std::string::npos) << result.output;
    EXPECT_EQ(result.output.find("gemm."), std::string::npos) << result.output;
    const JobResult none = run_command(verb + "--only nonsense --config " + golden_config);
    EXPECT_EQ(none.exit_code, 2);
    EXPECT_NE(none.output.find("no op's name begins with \"nonsense\"; there are: embedding, "),
              std::string::npos)
        << none.output;
}

}  // namespace
}  // namespace speedrun
