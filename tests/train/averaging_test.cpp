// Gradients had been summed over micro-batches but averaged over ranks, so that one GPU saw gradients 8 times
// too large (norm of lm_head's gradient 176128 instead of 21888 and 23040): modded-nanogpt, the record
// before 43.
#include <gtest/gtest.h>

#include <cstdio>

#include "data/shard.h"
#include "support/golden_inputs.h"
#include "support/golden_match.h"
#include "support/mpirun.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

struct Gradient {
    double norm = 0, error = 0;
};

class Averaging : public ::testing::Test {
  protected:
    void SetUp() override {
        if (!have_mpirun()) GTEST_SKIP() << "needs Open MPI's mpirun";
        write_shard(folder_ / "train_1.bin", golden::train_tokens_1());
        write_initial_weights(folder_ / "init.safetensors");
    }

    Gradient gradient(int ranks, const std::string& params, int rows = 8,
                      const std::string& accumulation = "sum_then_divide") const {
        const JobResult job =
            mpirun(ranks, std::string(SPEEDRUN_BUILD_DIR) + "/train_averaging " + folder_.path().string() +
                              " " + params + " " + std::to_string(rows) + " " + accumulation);
        Gradient found;
        EXPECT_EQ(job.exit_code, 0) << job.output;
        EXPECT_EQ(std::sscanf(job.output.c_str(), "norm %lf error %lf", &found.norm, &found.error), 2)
            << job.output;
        return found;
    }

    TemporaryFolder folder_;
};

// fp32: sums of a few thousand terms round at 2^-24 each.
TEST_F(Averaging, OneRankEightRanksAndOneUndividedCallAgree) {
    const Gradient one = gradient(1, "fp32"), eight = gradient(8, "fp32"), undivided = gradient(1, "fp32", 1);
    EXPECT_LT(one.error, 1e-9);  // it is what the error is measured against
    EXPECT_LT(eight.error, 1e-5);
    EXPECT_LT(undivided.error, 1e-5);
    EXPECT_NEAR(eight.norm, one.norm, 1e-5 * one.norm);
    EXPECT_NEAR(undivided.norm, one.norm, 1e-5 * one.norm);
    // The mistake, which accumulation "sum" keeps for comparison: 8 times too large on one rank, right on
    // eight.
    EXPECT_NEAR(gradient(1, "fp32", 8, "sum").norm, 8 * one.norm, 1e-5 * one.norm);
    EXPECT_NEAR(gradient(8, "fp32", 8, "sum").norm, one.norm, 1e-5 * one.norm);
}

// In bf16 every addition over micro-batches rounds; the sum over ranks is formed in fp32 and rounds once.
TEST_F(Averaging, InBf16FewerRoundingsAreMeasurablyBetter) {
    const Gradient one = gradient(1, "declared"), two = gradient(2, "declared"),
                   eight = gradient(8, "declared");
    RecordProperty("error_1_rank", std::to_string(one.error));
    RecordProperty("error_8_ranks", std::to_string(eight.error));
    std::printf("relative error of lm_head's gradient in bf16: 1 rank %.5f, 2 ranks %.5f, 8 ranks %.5f\n",
                one.error, two.error, eight.error);
    EXPECT_GT(one.error, 1.3 * eight.error);
    EXPECT_LT(eight.error, 0x1p-8);  // half an ulp for each micro-batch's own rounding, and for the sum's
    // Dividing by 8 is exact in bf16: when it happens makes no difference at all.
    EXPECT_EQ(gradient(1, "declared", 8, "divide_then_sum").error, one.error);
}

}  // namespace
}  // namespace speedrun
