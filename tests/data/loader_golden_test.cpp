// Batches of the golden run against what the Python reference served.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "data/loader.h"
#include "support/golden_batches.h"
#include "support/golden_inputs.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

TEST(LoaderGolden, TwelveStepsOfEightMicroBatches) {
    const TemporaryFolder dir;
    write_shard(dir / "t1", golden::train_tokens_1());
    write_shard(dir / "t2", golden::train_tokens_2());
    const auto expected =
        nlohmann::json::parse(std::ifstream(SPEEDRUN_SOURCE_DIR "/tests/golden/record43_batches.json"));
    ASSERT_EQ(expected["steps"].size(), 12u);
    TrainLoader loader({dir / "t1", dir / "t2"}, {golden::kVocab, golden::kBos});
    for (const auto& step : expected["steps"]) {
        const auto batches = loader.next_step({.rows = 8, .row = {256, 128}, .max_seq_len = 128});
        ASSERT_EQ(batches.size(), step.size());
        for (size_t i = 0; i < batches.size(); ++i) golden::expect_batch(batches[i], step[i]);
    }
}

TEST(LoaderGolden, ValidationIsContiguousWithBosInside) {
    const TemporaryFolder dir;
    const auto tokens = golden::val_tokens();
    write_shard(dir / "v", tokens);
    const ValLoader loader({dir / "v"}, {golden::kVocab, golden::kBos}, {512, 128}, 8192);
    ASSERT_EQ(loader.size(), 16);
    for (int64_t i = 0; i < loader.size(); ++i) {
        const Batch batch = loader.at(i);
        std::vector<int32_t> cu{0};
        for (size_t t = 0; t < 512; ++t) {
            const auto at = static_cast<size_t>(i) * 512 + t;
            EXPECT_EQ(batch.inputs[t], tokens[at]);
            EXPECT_EQ(batch.targets[t], tokens[at + 1]);
            if (tokens[at] == golden::kBos) cu.push_back(static_cast<int32_t>(t));
        }
        cu.resize(128, 512);
        EXPECT_EQ(batch.cu_seqlens, cu);
    }
    EXPECT_EQ(loader.at(0).cu_seqlens[1], 0);  // BOS at position 0: an empty segment, as in the reference
}

}  // namespace
}  // namespace speedrun
