// What a plan says, against what the program itself does.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "model/load_config.h"
#include "optim/optimizer.h"
#include "plan/graph_work.h"
#include "plan/rank_memory.h"
#include "plan/scaling.h"
#include "plan/throughput.h"
#include "plan/traffic.h"
#include "support/expect_error.h"
#include "train/checkpoint/layout.h"
#include "train/trainer.h"

namespace speedrun {
namespace {

const std::string golden_config = SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json";
const std::string record_config = SPEEDRUN_SOURCE_DIR "/configs/record_43.json";
const std::string quickstart_config = SPEEDRUN_SOURCE_DIR "/configs/quickstart.json";

// One of many ranks that says who it is and never talks.
class SilentRank final : public Communicator {
  public:
    SilentRank(int64_t rank, int64_t world_size) : rank_(rank), world_size_(world_size) {}
    int64_t rank() const override { return rank_; }
    int64_t world_size() const override { return world_size_; }
    Handle reduce_scatter(const at::Tensor&, std::span<const int64_t>, std::string_view) override {
        return {};
    }
    Handle all_gather(const at::Tensor&, std::span<const int64_t>, std::string_view) override { return {}; }
    Handle all_reduce(const at::Tensor&, ReduceOp, std::string_view) override { return {}; }
    Handle broadcast(const at::Tensor&, int64_t, std::string_view) override { return {}; }
    Handle all_to_all(const at::Tensor&, std::span<const int64_t>, const at::Tensor&,
                      std::span<const int64_t>, std::string_view) override {
        return {};
    }
    void barrier(std::string_view) override {}
    CommStats stats() const override { return {}; }
    void observe(CollectiveObserver*) override {}

  private:
    int64_t rank_, world_size_;
};

TEST(RunPlan, StateAndCheckpointsAreTheOptimizersOwn) {
    for (const std::string& file : {golden_config, quickstart_config, record_config}) {
        const Config config = load_config(file);
        GPT model(config, 1, at::kMeta);
        for (const int64_t world : {1, 3, 8, 16, 100})
            for (const int64_t rank : {int64_t{0}, world / 2, world - 1}) {
                SilentRank silent(rank, world);
                SCOPED_TRACE(file + ", rank " + std::to_string(rank) + " of " + std::to_string(world));
                const Optimizer optimizer(config, model.parameters(), silent);
                const Ownership own = plan_ownership(config, world);
                EXPECT_EQ(optimizer_state_bytes(config, own, rank), optimizer.state_bytes());
                for (const bool pending : {false, true})
                    EXPECT_EQ(checkpoint_bytes(config, own, rank, pending),
                              checkpoint_layout(config, model.parameters(), optimizer, rank, world, pending)
                                  .extent_bytes());
            }
    }
}

TEST(RunPlan, WeightsAreTheTablesOwn) {
    for (const std::string& file : {golden_config, quickstart_config, record_config}) {
        const Config config = load_config(file);
        GPT model(config, 1, at::kMeta);
        int64_t masters = 0, gradients = 0, copies = 0;
        for (const Parameter& parameter : model.parameters().all()) {
            masters += static_cast<int64_t>(parameter.value.nbytes());
            gradients += static_cast<int64_t>(parameter.grad.nbytes());
            if (!parameter.used.is_same(parameter.value))
                copies += static_cast<int64_t>(parameter.used.nbytes());
        }
        const RankMemory memory =
            rank_memory(config, model.graph(), plan_ownership(config, 2), Operators::cpu).front();
        EXPECT_EQ(memory.masters, masters) << file;
        EXPECT_EQ(memory.gradients, gradients) << file;
        EXPECT_EQ(memory.copies, copies) << file;
        EXPECT_EQ(memory.tables,
                  static_cast<int64_t>(model.rotary().cos().element_size()) * config.model.head_dim *
                      std::max(row_lengths(config).back(), config.data.val_micro_batch_tokens));
    }
}

// Record 43's 11 MLPs, of which fc lies as [in, out]: a GPU makes its bytes there before they are turned.
TEST(RunPlan, CountsMlpsInEightBitFloats) {
    const std::vector<std::string> overrides{"numerics.mlp.up.format=fp8", "numerics.mlp.down.format=fp8"};
    const Config plain = load_config(record_config), config = load_config(record_config, overrides);
    const Graph graph = compile(config);
    ASSERT_EQ(graph.fp8_weights().size(), 22U);
    const Ownership own = plan_ownership(config, 2);
    constexpr int64_t elements = 768 * 3072, scales = 22 * 3 * 4;
    const auto more = [&](Operators operators) {
        return rank_memory(config, graph, own, operators).front().copies -
               rank_memory(plain, compile(plain), own, operators).front().copies;
    };
    EXPECT_EQ(more(Operators::cpu), 22 * elements * 2 + scales);
    EXPECT_EQ(more(Operators::gpu), 22 * elements + elements + scales);
    GPT model(config, 1, at::kMeta);
    int64_t codes = 0;
    for (int64_t i = 0; i < 22; ++i)
        codes += static_cast<int64_t>(model.parameters().fp8().matrix(i).codes.nbytes());
    EXPECT_EQ(codes, 22 * elements * 2);
    for (const int64_t rank : {0, 1}) {
        SilentRank silent(rank, 2);
        const Optimizer optimizer(config, model.parameters(), silent);
        EXPECT_EQ(checkpoint_bytes(config, own, rank, false),
                  checkpoint_layout(config, model.parameters(), optimizer, rank, 2, false).extent_bytes());
    }
    // A third of the MLPs' FLOP at the rate of 8-bit floats, which is twice the other's.
    const StepSettings settings = largest_step(config, false);
    const Machine machine = find_machine("h100");
    const auto seconds = [&](const Config& of) {
        return step_floor(of, compile(of), own, settings, machine, 1).forward_backward;
    };
    const double mlp_flop = 11 * 12.0 * elements * static_cast<double>(settings.batch_tokens) / 2;
    EXPECT_NEAR(seconds(plain) - seconds(config),
                mlp_flop / 3 * (1 / machine.bf16_flops - 1 / machine.fp8_flops), 1e-9);
}

// Post alone is kept, and the gradient of pre takes no more than before.
TEST(RunPlan, SavingPostAloneTakesLessMemory) {
    const std::vector<std::string> overrides{"numerics.mlp.save_for_backward=post"};
    const Config both = load_config(record_config), post = load_config(record_config, overrides);
    const std::array<int64_t, 1> tokens{32768};
    EXPECT_EQ(activation_bytes(both, tokens, 0) - activation_bytes(post, tokens, 0),
              11 * tokens[0] * 3072 * 2);
}

// Whatever the shares, together the ranks send the least that moves every gradient to its owner and every
// value to all.
TEST(RunPlan, RanksTogetherSendTheLeastThereIs) {
    const Config config = load_config(record_config);
    for (const int64_t world : {2, 3, 8, 16, 1024}) {
        const Ownership own = plan_ownership(config, world);
        const auto traffic = bucket_traffic(config, compile(config), own);
        double sent = 0, bytes = 0;
        for (const BucketTraffic& bucket : traffic) {
            bytes += static_cast<double>(bucket.gradient_bytes + bucket.value_bytes);
            for (const auto& ranks : {bucket.reduce_sent, bucket.gather_sent})
                sent += static_cast<double>(std::accumulate(ranks.begin(), ranks.end(), int64_t{0}));
        }
        EXPECT_DOUBLE_EQ(sent, static_cast<double>(world - 1) * bytes) << world;
        EXPECT_DOUBLE_EQ(least_sent(own, traffic, true), sent / static_cast<double>(world)) << world;
    }
}

// 10 * 4 + 2 * 11 * 4 matrices of 768 x 768 and the head: 685 MFLOP a token, of which the head's third is
// FP8's. Causal attention over a window of w keys in documents of L: 12 d (w + 1 - w (w + 1) / 2 L) a layer.
TEST(RunPlan, FlopOfRecord43) {
    const Config config = load_config(record_config);
    StepSettings settings = largest_step(config, false);
    settings.window_short = settings.window_long = 127;
    settings.max_seq_len = 128;  // each key up to its own: 64.5 on average
    const TokenFlop flop = flop_per_token(compile(config), pass_shape(config, settings));
    EXPECT_DOUBLE_EQ(flop.gemm, 6.0 * (128 * 768 * 768 + 50304 * 768));
    EXPECT_DOUBLE_EQ(flop.head, 6.0 * 50304 * 768);
    EXPECT_DOUBLE_EQ(flop.attention, 12.0 * 768 * 64.5 * 10);
}

TEST(RunPlan, ActivationsAreProportionalToTokens) {
    const Config config = load_config(record_config);
    EXPECT_EQ(activation_bytes(config, std::array<int64_t, 1>{32768}, 0),
              32 * activation_bytes(config, std::array<int64_t, 1>{1024}, 0));
}

// They take turns with the same memory.
TEST(RunPlan, ValidationsShareTheMemoryOfTraining) {
    const Config config = load_config(record_config);
    const std::array<int64_t, 1> rows{32768}, short_rows{512};
    const int64_t training = activation_bytes(config, rows, 0);
    EXPECT_EQ(activation_bytes(config, rows, 32768), training);
    const int64_t validation = activation_bytes(config, short_rows, 262144);
    EXPECT_EQ(activation_bytes(config, rows, 262144), std::max(training, validation));
}

TEST(RunPlan, ScalingOfRecord43) {
    const Config config = load_config(record_config);
    const auto rows = scaling_table(config, find_machine("h100"), 8);
    ASSERT_EQ(rows.size(), 11U);
    EXPECT_EQ(rows.back().ranks, 1024);
    EXPECT_EQ(rows[3].accumulation, 1);
    EXPECT_FALSE(rows[3].split);
    EXPECT_TRUE(rows[4].split);
    EXPECT_EQ(rows.back().row_tokens, 256);
    // 262,144 tokens of 453 + 64 MFLOP at 700 TFLOP/s and 232 at 1200 (FP8), and 1.5 TFLOP of
    // orthogonalization.
    EXPECT_NEAR(rows[0].floor.overlapped(), 0.2464, 0.001);
    for (size_t i = 0; i < rows.size(); ++i) {
        EXPECT_LE(rows[i].efficiency, 1 + 1e-9) << rows[i].ranks;
        EXPECT_LE(rows[i].floor.overlapped(), rows[i].floor.in_turn());
    }
    const size_t last = last_worthwhile(rows);
    EXPECT_LT(last + 1, rows.size());
    const std::string text = scaling_text(config, rows, find_machine("h100"), 8);
    EXPECT_NE(text.find("It stops scaling at " + std::to_string(rows[last].ranks)), std::string::npos)
        << text;
    EXPECT_NE(text.find("The batch has 8 rows"), std::string::npos) << text;
}

// 16 entries in the attention bucket, 16 in the MLP's: from 16 ranks on each rank owns one at most.
TEST(RunPlan, BeyondSixteenRanksTheUpdateShrinksNoMore) {
    const auto rows = scaling_table(load_config(record_config), find_machine("h100"), 8);
    EXPECT_LT(rows[4].floor.optimizer, rows[3].floor.optimizer);
    EXPECT_EQ(rows[4].floor.optimizer, rows.back().floor.optimizer);
}

TEST(RunPlan, MachinesAreNamed) {
    EXPECT_EQ(find_machine("a100").fp8_flops, 0);
    expect_user_error([] { find_machine("h10"); }, {"h10", "h100", "cpu"});
}

}  // namespace
}  // namespace speedrun
