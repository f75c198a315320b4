#pragma once
#include <cuda_fp8.h>

#include "ops/cuda/device.cuh"

namespace speedrun::cuda {

inline __nv_fp8_interpretation_t interpretation(Fp8 format) {
    return format == Fp8::e4m3 ? __NV_E4M3 : __NV_E5M2;
}

// Rounded to nearest even; what is larger than the format's largest number becomes that.
template <int N>
__device__ __forceinline__ Pack<uint8_t, N> to_fp8(const float (&x)[N], __nv_fp8_interpretation_t format) {
    Pack<uint8_t, N> bytes;
    if constexpr (N == 1) {
        bytes.at[0] = __nv_cvt_float_to_fp8(x[0], __NV_SATFINITE, format);
    } else {
#pragma unroll
        for (int k = 0; k < N; k += 2) {
            const __nv_fp8x2_storage_t two =
                __nv_cvt_float2_to_fp8x2(float2{x[k], x[k + 1]}, __NV_SATFINITE, format);
            bytes.at[k] = static_cast<uint8_t>(two);
            bytes.at[k + 1] = static_cast<uint8_t>(two >> 8);
        }
    }
    return bytes;
}

}  // namespace speedrun::cuda
