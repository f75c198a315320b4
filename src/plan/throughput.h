#pragma once
#include <ATen/core/ScalarType.h>

#include <cstdint>

#include "config/config.h"

namespace speedrun {

// FLOP/s that the trainer's own GEMM reaches on this device, the best of a few products of 1024 x 1024
// matrices.
double measure_gemm_peak(at::ScalarType dtype, at::Device device);

// Bytes/s that copies of tensors far larger than the caches read and write together, the best of a few.
double measure_copy_bandwidth(at::Device device);

}  // namespace speedrun
