#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda_runtime.h"

enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };
enum __nv_saturation_t { __NV_SATFINITE };

// Rounds to nearest even; beyond the largest number, to that; subnormals down to 2^-9 (e4m3) and 2^-16
// (e5m2).
inline uint8_t __nv_cvt_float_to_fp8(float value, __nv_saturation_t, __nv_fp8_interpretation_t format) {
    const int mantissa = format == __NV_E4M3 ? 3 : 2, bias = format == __NV_E4M3 ? 7 : 15;
    const auto sign = static_cast<uint8_t>(std::signbit(value) ? 0x80 : 0);
    if (std::isnan(value)) return static_cast<uint8_t>(sign | 0x7f);
    const float largest = format == __NV_E4M3 ? 448.0F : 57344.0F;
    const float size = std::min(std::fabs(value), largest);
    if (size == 0) return sign;
    int exponent = 0;
    std::frexp(size, &exponent);
    const int least =
        std::max(exponent - 1, 1 - bias);  // the exponent it is written with, or that of subnormals
    const float steps = std::nearbyint(std::ldexp(size, mantissa - least));  // in units of its last digit
    const auto whole = static_cast<int>(steps) + ((least + bias - 1) << mantissa);
    return static_cast<uint8_t>(sign | std::min(whole, format == __NV_E4M3 ? 0x7e : 0x7b));
}

using __nv_fp8x2_storage_t = uint16_t;
inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 value, __nv_saturation_t saturation,
                                                     __nv_fp8_interpretation_t format) {
    return static_cast<uint16_t>(__nv_cvt_float_to_fp8(value.x, saturation, format) |
                                 __nv_cvt_float_to_fp8(value.y, saturation, format) << 8);
}
