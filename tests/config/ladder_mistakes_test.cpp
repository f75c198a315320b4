// Mistakes in keys that records 63 to 88 brought: each is said where it stands.
#include <gtest/gtest.h>

#include "config_testing.h"

namespace speedrun {
namespace {

struct LadderMistake {
    int64_t record;
    Overrides overrides;
    std::vector<std::string> parts;
};

// What comes out of the last layer, with h7 by a coefficient.
std::string output_with(const std::string& coefficient) {
    return "model.output.mix=[[1, \"x\"], [\"" + coefficient + "\", \"h7\"]]";
}

std::string prefix_with(const std::string& members) {
    return "schedule.stages[1].prefix={" + members + "}";
}

// Dynamic composition in a layer of record 82.
LadderMistake composed(int64_t layer, const std::string& window, const std::string& w1, const std::string& w2,
                       const std::vector<std::string>& parts) {
    return {82,
            {"model.layers[" + std::to_string(layer) + "].attn.dc={\"window\":" + window + ",\"w1\":" + w1 +
             ",\"w2\":" + w2 + "}"},
            parts};
}

std::vector<LadderMistake> ladder_mistakes() {
    return {
        // records 65 to 80
        {65, {"schedule.lr.cooldown_frac=0.5"}, {"schedule.lr.cooldown_start", "cooldown_frac"}},
        {65, {"schedule.lr.cooldown_start=5000"}, {"schedule.lr.cooldown_start", "5000"}},
        {65,
         {"data.rows=131072", "data.val_micro_batch_tokens=512"},
         {"schedule.stages[0].mtp.from", "more targets than a row has tokens"}},
        {73,
         {"model.params.value_embeds.round_in_use=true"},
         {"model.params.value_embeds.round_in_use", "bf16"}},
        {73, {"model.layers[1].mlp.input=lane1"}, {"model.layers[1].mlp.input", "no source of that name"}},
        {77, {"model.layers[8].attn.input=h9"}, {"model.layers[8].attn.input", "no source of that name"}},
        {77, {"model.layers[5].cache=h3"}, {"model.layers[5].cache", "not a name for a new source"}},
        {80, {"model.params.qk_bank.entries_per_layer=7"}, {"model.params.qk_bank.shape", "dimension 0"}},
        {80,
         {"numerics.mlp.up.format=fp8", "model.mlp_hidden=3080"},
         {"model.mlp_hidden", "numerics.mlp.up.format fp8 takes 16 channels at a time", "3080"}},
        // nets of coefficients, and XSA
        {81,
         {"model.coef_nets.m0.entry_of_layer=-1"},
         {"model.layers[9].before_attn[0][0]", "evaluated later than here", "\"m0\""}},
        {81,
         {"model.coef_nets.m0.input=h12"},
         {"model.coef_nets.m0.input", "no source of that name", "\"h12\""}},
        {81, {"model.coef_nets.m1.w1=mudd_w2[1]"}, {"model.coef_nets.m1.w1", "parameter mudd_w2", "[14,64]"}},
        {81,
         {"model.coef_nets.m0.b2=mudd_b2[0:12]"},
         {"model.coef_nets.m0.b2", "parameter mudd_b2", "[12]", "[14]"}},
        {81, {output_with("m1[5]")}, {"model.output.mix[1][0]", "5"}},
        {81, {output_with("m1[0,1]")}, {"model.output.mix[1][0]", "outputs of m1"}},
        {81, {output_with("m7[0]")}, {"model.output.mix[1][0]", "m7"}},
        {81, {output_with("sigmoid(m1[0])")}, {"model.output.mix[1][0]", "outputs of a net"}},
        {81, {"model.coef_nets.m1.entry_of_layer=11"}, {"model.coef_nets.m1.entry_of_layer", "11"}},
        {81, {"model.coef_nets.m1.w2=mudd_w2"}, {"model.output.mix[1][0]", "w2 has two dimensions"}},
        {81, {"model.output.mix=[[1, \"x\"]]"}, {"model.coef_nets.m1", "no coefficient reads an output"}},
        {81,
         {"model.coef_nets.scalars={\"w1\": \"mudd_w1[0]\", \"w2\": \"mudd_w2[0]\", \"b2\": "
          "\"mudd_b2[0:14]\"}"},
         {"scalars"}},
        {81,
         {"model.layers[0].cache_entry=x0"},
         {"model.layers[0].cache_entry", "not a name for a new source"}},
        {82,
         {"model.layers[2].attn.xsa=xsa_alphas[i]"},
         {"model.layers[2].attn.xsa", "paired heads have none"}},
        {82, {"model.layers[1].attn.xsa=resid_lambdas[0]"}, {"model.layers[1].attn.xsa", "[6]"}},
        {82,
         {"model.layers[10].attn.xsa=m0[0:2]"},
         {"model.layers[10].attn.xsa", "not a number for each head", "m0[0:2]",
          "6 outputs of one of model.coef_nets"}},
        // prefix-token loss (record 88)
        {82,
         {prefix_with("\"from\": 0.25, \"to\": 0, \"begin\": 0, \"end\": 458")},
         {"data.prefix_table", "schedule.stages[1].prefix has a weight", "vocab.bpe"}},
        {82, {"data.prefix_table=data/tokenizer"}, {"data.prefix_table", "never be used", "data/tokenizer"}},
        {82,
         {"data.prefix_table=data/tokenizer",
          prefix_with("\"from\": 0, \"to\": 0, \"begin\": 0, \"end\": 458")},
         {"data.prefix_table", "never be used"}},
        {82,
         {"data.prefix_table=data/tokenizer",
          prefix_with("\"from\": 0.25, \"to\": 0, \"begin\": 9, \"end\": 8.5")},
         {"schedule.stages[1].prefix.end", "8.5", "at least 9"}},
        {82,
         {"data.prefix_table=data/tokenizer",
          prefix_with("\"from\": -0.25, \"to\": 0, \"begin\": 0, \"end\": 9")},
         {"schedule.stages[1].prefix.from", "-0.25"}},
        {82,
         {"data.prefix_table=data/tokenizer", prefix_with("\"from\": 0.25, \"begin\": 0, \"end\": 9")},
         {"schedule.stages[1].prefix.to"}},
        {82, {"data.prefix_table=7"}, {"data.prefix_table", "7"}},
        // dynamic composition
        composed(9, "112", "\"m0[0:6]\"", "\"m0[6:12]\"",
                 {"model.layers[9].attn.dc", "paired heads have none"}),
        composed(10, "0", "\"m0[0:6]\"", "\"m0[6:12]\"", {"model.layers[10].attn.dc.window", "1 .. 512"}),
        composed(10, "513", "\"m0[0:6]\"", "\"m0[6:12]\"",
                 {"model.layers[10].attn.dc.window", "513", "1 .. 512"}),
        composed(10, "112", "\"m0[0:5]\"", "\"m0[6:12]\"",
                 {"model.layers[10].attn.dc.w1", "m0[0:5]", "6 outputs of one of model.coef_nets"}),
        composed(10, "112", "\"m0[0:6]\"", "\"scalars.sa[i,0]\"",
                 {"model.layers[10].attn.dc.w2", "scalars.sa[10,0]", "6 outputs"}),
        composed(10, "112", "\"m0[0:6]\"", "\"2*m0[6:12]\"",
                 {"model.layers[10].attn.dc.w2", "2*m0[6:12]", "6 outputs"}),
        composed(10, "112", "\"m0[0:6]\"", "null", {"model.layers[10].attn.dc.w2", "required key is null"}),
        composed(10, "112", "\"m0[0:6]\"", "\"m0[9:15]\"", {"model.layers[10].attn.dc.w2", "out of range"}),
        composed(8, "112", "\"m0[0:6]\"", "\"m0[6:12]\"",
                 {"model.layers[8].attn.dc.w1", "evaluated later than here", "\"m0\""}),
    };
}

TEST(LadderMistakes, AreSaidWhereTheyAre) {
    for (const LadderMistake& mistake : ladder_mistakes())
        expect_refused(source_folder / ("configs/record_" + std::to_string(mistake.record) + ".json"),
                       mistake.overrides, mistake.parts);
}

}  // namespace
}  // namespace speedrun
