#pragma once
#include <bit>
#include <cstdint>

// Two bytes as the toolkit's type; rounds to nearest even.
struct __nv_bfloat16 {
    uint16_t x;
};

inline float __bfloat162float(__nv_bfloat16 value) {
    return std::bit_cast<float>(static_cast<uint32_t>(value.x) << 16);
}

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
    return {static_cast<uint16_t>(value != value ? 0x7fffU : rounded)};
}
