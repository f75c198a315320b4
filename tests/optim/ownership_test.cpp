#include "optim/ownership.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "model/load_config.h"

namespace speedrun {
namespace {

Config record_43() {
    return load_config(SPEEDRUN_SOURCE_DIR "/configs/record_43.json");
}

const Bucket& bucket(const Ownership& plan, const std::string& name) {
    const auto found = std::ranges::find(plan.buckets, name, &Bucket::name);
    EXPECT_NE(found, plan.buckets.end()) << name;
    return *found;
}

// "GPUs receive [2 ATTN, 2 ATTN, 2 ATTN, 2 ATTN, 2 ATTN, 2 MLP, 2 MLP, 2 MLP]", then 16 of the MLP
// (class NorMuon of train_gpt.py).
TEST(Ownership, EightRanksAsInRecord43) {
    const Ownership plan = plan_ownership(record_43(), 8);
    const Bucket& first = bucket(plan, "attn_qkvo+mlp_fc[0:6]");
    const Bucket& second = bucket(plan, "mlp_fc[6:11]+mlp_proj");
    EXPECT_EQ(first.units, std::vector<int64_t>(8, 2));
    EXPECT_EQ(second.units, std::vector<int64_t>(8, 2));
    EXPECT_EQ(first.unit_elements, 4 * 768 * 768);
    EXPECT_EQ(first.owned_by(4), (std::vector<Piece>{{"attn_qkvo", 8, 10}}));
    EXPECT_EQ(first.owned_by(5), (std::vector<Piece>{{"mlp_fc", 0, 2}}));
    EXPECT_EQ(second.owned_by(2), (std::vector<Piece>{{"mlp_fc", 10, 11}, {"mlp_proj", 0, 1}}));
    EXPECT_EQ(bucket(plan, "attn_gate").units, (std::vector<int64_t>{2, 2, 2, 2, 2, 0, 0, 0}));
    EXPECT_EQ(bucket(plan, "smear_gate").units, (std::vector<int64_t>{1, 0, 0, 0, 0, 0, 0, 0}));
    EXPECT_EQ(bucket(plan, "embed").units, std::vector<int64_t>(8, 50304 / 8));
    EXPECT_EQ(bucket(plan, "embed").owned_by(3), (std::vector<Piece>{{"embed", 3 * 6288, 4 * 6288}}));
    EXPECT_EQ(bucket(plan, "value_embeds").units, std::vector<int64_t>(8, 3 * 50304 / 8));
    EXPECT_EQ(bucket(plan, "scalars").units, std::vector<int64_t>(8, 8));
}

// Whatever the count, every unit has one owner, nothing is padded, and no rank owns more than its share
// rounded up.
TEST(Ownership, EveryUnitOnceForAnyCount) {
    const Config config = record_43();
    for (const int64_t world_size : {1, 2, 3, 4, 5, 6, 7, 8, 11, 64, 1024}) {
        SCOPED_TRACE(world_size);
        const Ownership plan = plan_ownership(config, world_size);
        std::map<std::string, int64_t> elements;
        for (const Bucket& b : plan.buckets) {
            int64_t units = 0;
            for (const Piece& piece : b.pieces) units += piece.end - piece.begin;
            EXPECT_EQ(b.total_units(), units);
            const auto counts = b.counts();
            EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), units * b.unit_elements);
            std::map<std::string, int64_t>
                next;  // the unit that the next owner of a parameter must begin with
            for (const Piece& piece : b.pieces) next[piece.param] = piece.begin;
            for (int64_t rank = 0; rank < world_size; ++rank) {
                EXPECT_LE(b.units[static_cast<size_t>(rank)], (units + world_size - 1) / world_size);
                int64_t owned = 0;
                for (const Piece& piece : b.owned_by(rank)) {
                    EXPECT_EQ(piece.begin, next[piece.param]) << b.name << " rank " << rank;
                    next[piece.param] = piece.end;
                    owned += piece.end - piece.begin;
                    elements[piece.param] += (piece.end - piece.begin) * b.unit_elements;
                }
                EXPECT_EQ(owned, b.units[static_cast<size_t>(rank)]);
            }
        }
        for (const ParamConfig& param : config.model.params)
            EXPECT_EQ(elements[param.name], std::accumulate(param.shape.begin(), param.shape.end(),
                                                            int64_t{1}, std::multiplies<>()))
                << param.name;
    }
}

}  // namespace
}  // namespace speedrun
