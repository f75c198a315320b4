#pragma once
#include <c10/util/BFloat16.h>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace speedrun::ops::cpu {

// x in the type T, bf16 by rounding to nearest even. Unlike c10's conversion it has no branch for NaN, so
// that loops are vectorised: the NaNs that arithmetic on bf16 and fp32 numbers makes stay NaN.
template <class T>
[[gnu::always_inline]] inline T narrow(float x) {
    if constexpr (std::is_same_v<T, at::BFloat16>) {
        const uint32_t bits = std::bit_cast<uint32_t>(x);
        return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16), at::BFloat16::from_bits()};
    } else {
        return x;
    }
}

}  // namespace speedrun::ops::cpu
