// `speedrun bench ops`: its rows, their floors, and the verb on the golden model.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "app/bench/counted_graphs.h"
#include "app/bench/ops/node_timer.h"
#include "app/bench/ops/rows.h"
#include "app/bench/timing.h"
#include "model/gpt.h"
#include "model/load_config.h"
#include "plan/graph_work.h"
#include "support/function_graphs.h"
#include "support/golden_runs.h"
#include "support/mpirun.h"

namespace speedrun {
namespace {

using Json = nlohmann::json;

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

// On a GPU; what cannot be captured cannot be counted.
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
    for (const auto& graph : {&a, &b}) (*graph)->capture([&] { ++calls; });
    EXPECT_EQ(counted.launches(), 0);
    for (int i = 0; i < 3; ++i) a->launch();
    b->launch();
    EXPECT_EQ(calls, 4);
    EXPECT_EQ(counted.launches(), 4);
    EXPECT_EQ(counted.kernels(), 4);
}

// Rows of a pass over record 43's model at full size, on the meta device, where ops look at shapes alone.
std::map<std::string, TimedOp> rows_of_record_43(const Config& config) {
    StepSettings settings = settings_at(config, 0);
    settings.max_seq_len = 400;
    GPT model(config, settings.row_tokens, at::kMeta);
    NodeTimer timer(at::kCPU);
    model.forward_backward(synthetic_batch(config, settings.row_tokens, 400), settings, 1, {}, &timer);
    timer.end_pass();
    std::map<std::string, TimedOp> rows;
    for (const TimedOp& row : timer.rows(pass_shape(config, settings), 8))
        rows.emplace(row.op.name + " " + row.op.shape, row);
    return rows;
}

// Layer 0 is skipped, layer 7 has no attention; two layers have the long window.
TEST(NodeTimer, HasOneRowForNodesThatDoTheSame) {
    const auto rows = rows_of_record_43(load_config(record_config));
    const std::map<std::string, double> expected{{"attention.forward 6x128 short", 8},
                                                 {"attention.backward 6x128 long", 2},
                                                 {"linear.forward 768x2304", 10},
                                                 {"linear.backward 768x768", 10},
                                                 {"mlp.backward 768x3072", 11},
                                                 {"rotary.forward 6x128", 20},
                                                 {"head.forward 768x50304", 1},
                                                 {"embed.forward 50304x768", 4},
                                                 {"mix.forward 2+norm x 768", 11 + 10 + 1}};
    for (const auto& [name, count] : expected) {
        ASSERT_EQ(rows.count(name), 1U) << name;
        EXPECT_EQ(rows.at(name).op.per_step, 8 * count) << name;
    }
}

TEST(NodeTimer, RowsAddUpToTheFlopOfAStep) {
    const Config config = load_config(record_config);
    StepSettings settings = settings_at(config, 0);
    settings.max_seq_len = 400;
    double flop = 0;
    for (const auto& [name, row] : rows_of_record_43(config)) flop += row.op.per_step * row.op.flop;
    const TokenFlop token = flop_per_token(compile(config), pass_shape(config, settings));
    const double expected = 8.0 * 32768 * (token.gemm + token.attention);
    EXPECT_NEAR(flop, expected, 1e-12 * expected);
}

TEST(StepOps, HaveTheUpdateOfEveryParameterWithItsCadence) {
    const Config config = load_config(record_config);
    std::map<std::string, double> whole;
    for (const Op& op : optimizer_ops(config, compile(config), settings_at(config, 0), at::kCPU))
        if (op.within.empty()) whole[op.name] = op.per_step;
    const std::map<std::string, double> expected{
        {"adam.embed", 0.5},     {"adam.value_embeds", 0.5}, {"adam.lm_head", 0.5},
        {"adam.scalars", 0.5},   {"matrix.smear_gate", 1},   {"matrix.attn_qkvo", 1},
        {"matrix.attn_gate", 1}, {"matrix.mlp_fc", 1},       {"matrix.mlp_proj", 1}};
    EXPECT_EQ(whole, expected);
}

const std::string bench_ops =
    std::string(SPEEDRUN_EXECUTABLE) + " bench ops --device cpu --ms 5 --set runtime.threads=1 ";

TEST(BenchOpsVerb, TimesEveryOpOfTheGoldenModel) {
    const JobResult result = run_command(bench_ops + "--json --config " + golden_config, 120);
    ASSERT_EQ(result.exit_code, 0) << result.output;
    const Json json = Json::parse(result.output);
    EXPECT_EQ(json["tokens"], 256);
    EXPECT_EQ(json["micro_batches"], 8.0);
    std::map<std::string, double> counts;
    for (const Json& row : json["ops"]) {
        EXPECT_GT(row["ms"].get<double>(), 0) << row;
        counts[row["op"]] = row["per_step"];
    }
    for (const char* name :
         {"embed.backward", "smear.forward", "mix.backward", "rotary.forward", "gate.backward", "mlp.forward",
          "linear.backward", "head.forward", "adam.embed", "matrix.attn_qkvo", "matrix.mlp_fc.orthogonalize"})
        EXPECT_EQ(counts.count(name), 1U) << name;
    EXPECT_EQ(counts["rotary.forward"], 8 * 20);
    EXPECT_GT(json["step"]["ms"].get<double>(), 0);
}

TEST(BenchOpsVerb, TakesOnlyThoseThatBeginSo) {
    const JobResult result = run_command(bench_ops + "--only rotary --config " + golden_config);
    ASSERT_EQ(result.exit_code, 0) << result.output;
    EXPECT_NE(result.output.find("\nrotary.backward "), std::string::npos) << result.output;
    EXPECT_EQ(result.output.find("linear."), std::string::npos) << result.output;
    const JobResult none = run_command(bench_ops + "--only nonsense --config " + golden_config);
    EXPECT_EQ(none.exit_code, 2);
    EXPECT_NE(none.output.find("no op's name begins with \"nonsense\"; there are: adam.embed, "),
              std::string::npos)
        << none.output;
}

}  // namespace
}  // namespace speedrun
