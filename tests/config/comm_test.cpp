#include "config/comm.h"

#include <gtest/gtest.h>

#include "config_testing.h"

namespace speedrun {
namespace {

std::string order(const std::string& buckets) {
    return R"("optimizer": {"comm": {"scatter_order": [)" + buckets + "]}}";
}

// Every parameter of record 43 but the matrices.
const std::string rest = R"("embed", "value_embeds", "lm_head", "scalars", "smear_gate", "attn_gate")";

void expect_mistake(const std::string& members, std::initializer_list<std::string> parts) {
    const ConfigFiles files;
    expect_user_error([&] { load(files.child(members)); }, parts);
}

TEST(Comm, Record43sBuckets) {
    const auto buckets = comm_buckets(load(record_43));
    ASSERT_EQ(buckets.size(), 8U);
    EXPECT_EQ(buckets[0].name, "embed");
    EXPECT_EQ(buckets[0].ranges, (std::vector<CommRange>{{"embed", 0, 50304}}));
    EXPECT_EQ(buckets[6].ranges, (std::vector<CommRange>{{"attn_qkvo", 0, 10}, {"mlp_fc", 0, 6}}));
    EXPECT_EQ(buckets[7].ranges, (std::vector<CommRange>{{"mlp_fc", 6, 11}, {"mlp_proj", 0, 11}}));
    EXPECT_EQ(comm_work_order(load(record_43)), (std::vector<size_t>{0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(contiguous_runs(load(record_43)),
              (std::vector<std::vector<std::string>>{{"attn_qkvo", "mlp_fc", "mlp_proj"}}));
}

TEST(Comm, WithoutAnOrderEveryParameterIsABucket) {
    const ConfigFiles files;
    const Config config = load(files.child(R"("optimizer": {"comm": null})"));
    const auto buckets = comm_buckets(config);
    ASSERT_EQ(buckets.size(), config.model.params.size());
    EXPECT_EQ(buckets[3].name, config.model.params[3].name);
    EXPECT_TRUE(contiguous_runs(config).empty());
}

TEST(Comm, MistakesNameTheBucket) {
    expect_mistake(order(rest + R"(, "attn_qkv")"),
                   {"optimizer.comm.scatter_order[6]", "no parameter \"attn_qkv\"", "\"attn_qkvo\""});
    expect_mistake(order(rest + R"(, "attn_qkvo", "mlp_fc[0:12]", "mlp_proj")"),
                   {"scatter_order[7]: range out of bounds", "0 <= begin < end <= 11"});
    for (const char* range :
         {"[3]", "[:3]", "[3:3]", "[-1:3]", "[0:3", "[0:3]x", "[]", "[0:99999999999999999999]"})
        expect_mistake(order(rest + R"(, "attn_qkvo", "mlp_fc)" + range + R"(", "mlp_proj")"),
                       {"scatter_order[7]: "});
    expect_mistake(order(rest + R"(, "attn_qkvo", "mlp_fc")"),
                   {"scatter_order: does not hold every entry of \"mlp_proj\" once", "0 parts", "[0:11]"});
    expect_mistake(order(rest + R"(, "attn_qkvo", "mlp_fc", "mlp_fc[3:11]", "mlp_proj")"),
                   {"does not hold every entry of \"mlp_fc\" once", "2 parts"});
    expect_mistake(order(rest + R"(, "attn_qkvo[0:9]+mlp_fc", "mlp_proj", "attn_qkvo[9:10]")"),
                   {"scatter_order[6]: \"mlp_fc\" does not follow"});
    expect_mistake(order(rest + R"(, "attn_qkvo+mlp_fc[0:6]", "mlp_proj+mlp_fc[6:11]")"),
                   {"scatter_order[7]: \"mlp_fc\" does not follow"});
    expect_mistake(
        order(rest + R"(, "attn_qkvo[5:10]+mlp_fc[0:6]", "mlp_fc[6:11]+attn_qkvo[0:5]", "mlp_proj")"),
        {"scatter_order[7]: \"attn_qkvo\" does not follow"});
    expect_mistake(order(rest + R"(, "mlp_fc[5:11]+mlp_fc[0:5]", "attn_qkvo", "mlp_proj")"),
                   {"does not follow"});
    expect_mistake(order(R"("embed+attn_qkvo", "mlp_fc", "mlp_proj", "value_embeds")"), {"differ too much"});
}

// Gradients by rows are those of the table of hashes, alone in its bucket and looked up by nobody else.
TEST(Comm, OnlyATableOfHashesSendsRows) {
    const std::filesystem::path record_62 = source_folder / "configs/record_62.json";
    const auto sparse = [](const std::string& param) {
        return "optimizer.params." + param + ".comm=sharded_sparse";
    };
    const Config config = load(record_62, {sparse("bigram_embed")});
    const auto row = std::ranges::find(config.optimizer.params, "bigram_embed", &OptimParamConfig::param);
    EXPECT_EQ(row->comm, OptimParamConfig::Comm::sharded_sparse);
    const auto expect = [&](const Overrides& overrides, std::initializer_list<std::string> parts) {
        expect_user_error([&] { load(record_62, overrides); }, parts);
    };
    for (const char* param : {"lm_head", "embed", "value_embeds", "mlp_bank", "scalars"})
        expect({sparse(param)},
               {"optimizer.params." + std::string(param) + ".comm", "is not looked up by rows of hashes",
                "sharded_sparse for \"bigram_embed\""});
    expect_mistake(R"("optimizer": {"params": {"embed": {"comm": "sharded_sparse"}}})",
                   {"optimizer.params.embed.comm", "no model.input.bigram"});
    expect({"optimizer.params.bigram_embed.comm=sparse"}, {"sharded_sparse"});
    const std::string others =
        R"("value_embeds","lm_head","embed","scalars","x0_lambdas","smear_gate","skip_gate","attn_gate","ve_gate",)"
        R"("attn_qkvo","mlp_bank"])";
    expect({sparse("bigram_embed"), "optimizer.comm.work_order=null",
            R"(optimizer.comm.scatter_order=["bigram_embed[0:1000]","bigram_embed[1000:251520]",)" + others},
           {"optimizer.params.bigram_embed.comm", "shares or splits a bucket"});
    // a table that the tokens look up too, whose rows nobody marks
    expect(
        {sparse("bigram_embed"), "model.params.bigram_embed.shape=[50304,768]", "model.input.tied_to=null",
         "schedule.untie_after_step=null", "model.input.token=bigram_embed", "model.params.embed=null",
         "optimizer.params.embed=null", "optimizer.comm.work_order=null",
         R"(optimizer.comm.scatter_order=["bigram_embed","value_embeds","lm_head","scalars","x0_lambdas","smear_gate",)"
         R"("skip_gate","attn_gate","ve_gate","attn_qkvo","mlp_bank"])"},
        {"optimizer.params.bigram_embed.comm"});
}

TEST(Comm, TheWorkOrderNamesEachBucketOnce) {
    const std::string comm = R"("optimizer": {"comm": {"scatter_order": [)" + rest +
                             R"(, "attn_qkvo", "mlp_fc", "mlp_proj"], "work_order": [)";
    expect_mistake(comm + rest + R"(, "attn_qkvo", "mlp_fc"]}})", {"work_order: leaves out \"mlp_proj\""});
    expect_mistake(comm + rest + R"(, "attn_qkvo", "mlp_fc", "mlp_pro"]}})",
                   {"work_order[8]: no bucket of scatter_order", "\"mlp_proj\""});
    expect_mistake(comm + rest + R"(, "attn_qkvo", "mlp_fc", "mlp_proj", "mlp_fc"]}})",
                   {"work_order[9]: named twice"});
    const ConfigFiles files;
    const Config config = load(files.child(comm + R"("mlp_proj", "mlp_fc", "attn_qkvo", )" + rest + "]}}"));
    EXPECT_EQ(comm_work_order(config), (std::vector<size_t>{8, 7, 6, 0, 1, 2, 3, 4, 5}));
}

}  // namespace
}  // namespace speedrun
