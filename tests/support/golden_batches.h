#pragma once
// Batches against what the Python reference served: checksums of the tokens, and document starts.
#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "data/batch.h"

namespace speedrun::golden {

inline uint32_t crc32(std::span<const int32_t> values) {
    uint32_t crc = 0xFFFFFFFFu;
    for (const std::byte byte : std::as_bytes(values)) {
        crc ^= static_cast<uint32_t>(byte);
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

inline void expect_batch(const Batch& batch, const nlohmann::json& expected) {
    const std::vector<int32_t> targets(batch.targets.begin(), batch.targets.end());
    EXPECT_EQ(crc32(batch.inputs), expected["inputs_crc32"].get<uint32_t>());
    EXPECT_EQ(crc32(targets), expected["targets_crc32"].get<uint32_t>());
    auto cu_seqlens = expected["cu_seqlens"].get<std::vector<int32_t>>();
    cu_seqlens.resize(128, static_cast<int32_t>(batch.inputs.size()));
    EXPECT_EQ(batch.cu_seqlens, cu_seqlens);
}

}  // namespace speedrun::golden
