#pragma once
#include <c10/util/BFloat16.h>

#include <bit>
#include <cstdint>

// Elements in memory (fp32 or bf16) and the fp32 numbers computed with. Written so that GCC vectorises loops
// over them.
namespace speedrun::ops::cpu {

inline float load(float value) {
    return value;
}
inline float load(c10::BFloat16 value) {
    return std::bit_cast<float>(static_cast<uint32_t>(value.x) << 16);
}

inline void store(float& to, float value) {
    to = value;
}

// Rounds to nearest even; every NaN becomes the quiet NaN 0x7fc0.
inline void store(c10::BFloat16& to, float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
    to.x = static_cast<uint16_t>(value != value ? 0x7fc0U : rounded);
}

}  // namespace speedrun::ops::cpu
