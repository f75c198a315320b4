#include "ops/attention/cpu/attention_plan.h"

#include <gtest/gtest.h>

#include <random>

#include "util/error.h"

namespace speedrun::ops::cpu {
namespace {

struct Sequence {
    int64_t tokens, window;
    std::vector<int32_t> cu_seqlens;
};

Sequence random_sequence(std::mt19937& random) {
    std::uniform_int_distribution<int32_t> length(0,
                                                  1 << std::uniform_int_distribution<int32_t>(0, 9)(random));
    Sequence s{0, std::uniform_int_distribution<int64_t>(0, 300)(random), {0}};
    for (int i = 0; i < 12; ++i) s.cu_seqlens.push_back(s.cu_seqlens.back() + length(random));
    s.tokens = s.cu_seqlens.back();
    s.cu_seqlens.push_back(s.cu_seqlens.back());
    return s;
}

// The mask, pair by pair.
bool sees(const Sequence& s, int64_t query, int64_t key) {
    int64_t start = 0;
    for (const int32_t boundary : s.cu_seqlens) {
        if (boundary <= query) start = boundary;
    }
    return key <= query && key >= query - s.window && key >= start;
}

TEST(AttentionPlan, VisitsExactlyTheBlocksThatTheMaskAllows) {
    std::mt19937 random(7);
    for (int round = 0; round < 60; ++round) {
        const Sequence s = random_sequence(random);
        const auto first = first_keys(s.cu_seqlens, s.tokens, s.window);
        const auto ranges = key_blocks(first);
        const int64_t blocks = (s.tokens + kBlock - 1) / kBlock;
        ASSERT_EQ(static_cast<int64_t>(ranges.size()), blocks);
        for (int64_t i = 0; i < blocks; ++i) {
            for (int64_t j = 0; j < blocks; ++j) {
                bool any = false;
                for (int64_t q = i * kBlock; q < std::min(s.tokens, (i + 1) * kBlock) && !any; ++q) {
                    for (int64_t k = j * kBlock; k < std::min(s.tokens, (j + 1) * kBlock) && !any; ++k) {
                        any = sees(s, q, k);
                    }
                }
                const BlockRange range = ranges[static_cast<size_t>(i)];
                EXPECT_EQ(j >= range.begin && j < range.end, any) << "queries " << i << ", keys " << j;
            }
        }
    }
}

TEST(AttentionPlan, PairMaskIsTheMask) {
    std::mt19937 random(8);
    for (int round = 0; round < 20; ++round) {
        const Sequence s = random_sequence(random);
        const auto first = first_keys(s.cu_seqlens, s.tokens, s.window);
        const auto ranges = key_blocks(first);
        for (size_t i = 0; i < ranges.size(); ++i) {
            for (int64_t j = ranges[i].begin; j < ranges[i].end; ++j) {
                const auto block = static_cast<int64_t>(i);
                const PairMask mask = pair_mask(first, block, j);
                for (int64_t q = 0; q < kBlock; ++q) {
                    for (int64_t k = 0; k < kBlock; ++k) {
                        const int64_t query = block * kBlock + q;
                        const bool seen = query < s.tokens && sees(s, query, j * kBlock + k);
                        ASSERT_EQ(mask.lo[q] <= k && k <= mask.hi[q], seen);
                    }
                }
            }
        }
    }
}

TEST(AttentionPlan, TasksCoverEveryBlockOnce) {
    const std::vector<int32_t> cu = {0, 10000};
    const auto ranges = key_blocks(first_keys(cu, 10000, 100));
    const auto tasks = attention_tasks(ranges, 3);
    EXPECT_GT(tasks.size(), 6U);
    std::vector<int> visits(3 * ranges.size(), 0);
    for (const AttentionTask& task : tasks) {
        for (int64_t b = task.blocks.begin; b < task.blocks.end; ++b) {
            ++visits[static_cast<size_t>(task.head) * ranges.size() + static_cast<size_t>(b)];
        }
    }
    EXPECT_EQ(visits, std::vector<int>(3 * ranges.size(), 1));
}

TEST(AttentionPlan, RejectsBrokenBoundaries) {
    EXPECT_THROW(first_keys(std::vector<int32_t>{}, 4, 1), InternalError);
    EXPECT_THROW(first_keys(std::vector<int32_t>{1, 4}, 4, 1), InternalError);
    EXPECT_THROW(first_keys(std::vector<int32_t>{0, 3, 2, 4}, 4, 1), InternalError);
    EXPECT_THROW(first_keys(std::vector<int32_t>{0, 9, 4}, 4, 1), InternalError);
    EXPECT_THROW(first_keys(std::vector<int32_t>{0, 3}, 4, 1), InternalError);
    EXPECT_THROW(first_keys(std::vector<int32_t>{0, 4}, 4, -1), InternalError);
}

}  // namespace
}  // namespace speedrun::ops::cpu
