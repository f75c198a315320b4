#pragma once
#include <bit>
#include <cstdint>

namespace speedrun::ops::cpu {

// 2^x for x <= 127, relative error below 1.5e-7; exactly 0 below -126, NaN for NaN. Written so that GCC
// vectorises loops over it. The polynomial on [-0.5, 0.5] is that of Cephes' exp2f.
[[gnu::always_inline]] inline float exp2_fast(float x) {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    constexpr float kShift = 12582912.0F;
    const float shifted = x + kShift;
    const float r = x - (shifted - kShift);
    float y = 1.535336188e-4F;
    y = y * r + 1.339887440e-3F;
    y = y * r + 9.618437357e-3F;
    y = y * r + 5.550332471e-2F;
    y = y * r + 2.402264791e-1F;
    y = y * r + 6.931472029e-1F;
    y = y * r + 1.0F;
    const float power = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) + 127U) << 23);
    // A selection of bits, not of values, which GCC would turn into a branch.
    const uint32_t keep = x < -126.0F ? 0U : ~0U;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(y * power) & keep);
}

}  // namespace speedrun::ops::cpu
