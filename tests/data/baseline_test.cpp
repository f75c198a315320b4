#include "data/baseline.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/shard.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

TEST(Baseline, AgreesWithTheFormulasByHand) {
    const TemporaryFolder dir;
    // pairs: 01 12 20 01 13 -> c(01) = 2, the other three once: n1 = 3, n2 = 1, D = 3.5 / 6
    write_shard(dir / "t", std::vector<uint16_t>{0, 1, 2, 0, 1, 3});
    write_shard(dir / "v", std::vector<uint16_t>{0, 1, 0, 3, 1});
    const std::vector<std::filesystem::path> train{dir / "t"}, val{dir / "v"};
    const BaselineLosses losses = count_baselines(train, val, 4);
    const double p0 = 3.0 / 10, p1 = 3.0 / 10, p3 = 2.0 / 10, d = 3.5 / 6;
    EXPECT_EQ(losses.train_tokens, 6);
    EXPECT_EQ(losses.val_tokens, 4);
    EXPECT_NEAR(losses.unigram, -(std::log(p1) + std::log(p0) + std::log(p3) + std::log(p1)) / 4, 1e-12);
    const double p01 = (2 - d) / 2 + d / 2 * p1, p10 = d * 2 / 2 * p0, p03 = d / 2 * p3, p31 = p1;
    EXPECT_NEAR(losses.bigram, -(std::log(p01) + std::log(p10) + std::log(p03) + std::log(p31)) / 4, 1e-12);
}

TEST(Baseline, BadInput) {
    const TemporaryFolder dir;
    write_shard(dir / "t", std::vector<uint16_t>{0, 1, 9});
    write_shard(dir / "v", std::vector<uint16_t>{0});
    const std::vector<std::filesystem::path> train{dir / "t"}, val{dir / "v"};
    expect_user_error([&] { count_baselines(train, val, 9); }, {"token is 9"});
    expect_user_error([&] { count_baselines(train, val, 10); }, {"no token to predict"});
}

}  // namespace
}  // namespace speedrun
