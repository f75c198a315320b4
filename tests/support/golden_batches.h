#pragma once
// Batches against what the Python reference served: checksums of the tokens, and document starts.
#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "data/batch.h"

namespace speedrun::golden {

template <typename Number>
uint32_t crc32(const std::vector<Number>& values) {
    uint32_t crc = 0xFFFFFFFFu;
    for (const std::byte byte : std::as_bytes(std::span(values))) {
        crc ^= static_cast<uint32_t>(byte);
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

inline void expect_batch(const Batch& batch, const nlohmann::json& expected) {
    EXPECT_EQ(crc32(batch.inputs), expected["inputs_crc32"].get<uint32_t>());
    if (expected.contains("int64_targets_crc32")) {
        EXPECT_EQ(crc32(batch.targets), expected["int64_targets_crc32"].get<uint32_t>());
    } else {
        const std::vector<int32_t> targets(batch.targets.begin(), batch.targets.end());
        EXPECT_EQ(crc32(targets), expected["targets_crc32"].get<uint32_t>());
    }
    auto cu_seqlens = expected["cu_seqlens"].get<std::vector<int32_t>>();
    const size_t entries = expected.value("entries", size_t{128});
    cu_seqlens.resize(entries, static_cast<int32_t>(batch.inputs.size()));
    EXPECT_EQ(batch.cu_seqlens, cu_seqlens);
}

}  // namespace speedrun::golden
