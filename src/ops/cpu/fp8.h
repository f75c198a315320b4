#pragma once
#include <bit>
#include <cstdint>

// The numbers of 8-bit floats, computed in fp32. Written so that GCC vectorises loops over them.
namespace speedrun::ops::cpu {

// The number of format e4m3 (3 bits behind the point, 448 at most, multiples of 2^-9 below 2^-6) that is
// nearest to x, of two that are as near the even one; +-448 for what lies beyond. NaN stays NaN, and so does
// the sign of zero.
inline float nearest_e4m3(float x) {
    constexpr uint32_t sign_bit = 0x80000000U, infinity = 0x7f800000U;
    constexpr uint32_t dropped = 20;  // of the 23 bits that fp32 has behind the point
    constexpr uint32_t most = 0x43e00000U, least_normal = 0x3c800000U;  // 448 and 2^-6 as fp32
    constexpr float coarse = 16384;  // from here on the numbers of fp32 are multiples of 2^-9
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    const uint32_t own = bits & ~sign_bit;
    const uint32_t size = own > most ? most : own;
    const uint32_t half = (1U << (dropped - 1)) - 1 + ((size >> dropped) & 1U);
    const uint32_t normal = (size + half) >> dropped << dropped;
    const uint32_t small = std::bit_cast<uint32_t>((std::bit_cast<float>(size) + coarse) - coarse);
    const uint32_t rounded = size < least_normal ? small : normal;
    return std::bit_cast<float>(own > infinity ? bits : rounded | (bits & sign_bit));
}

}  // namespace speedrun::ops::cpu
