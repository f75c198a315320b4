#pragma once
#include <ATen/core/ScalarType.h>

#include <cstdint>

#include "config/config.h"

namespace speedrun {

// GEMM operations of forward and backward for one token: 6 for every element of a matrix that is multiplied
// (record 43: 114 M elements, 685 MFLOP). Attention itself is not counted.
double gemm_flop_per_token(const ModelConfig& model);

// FLOP/s that the trainer's own GEMM reaches on this device, the best of a few products of 1024 x 1024
// matrices.
double measure_gemm_peak(at::ScalarType dtype, at::Device device);

// Bytes/s that copies of tensors far larger than the caches read and write together, the best of a few.
double measure_copy_bandwidth(at::Device device);

}  // namespace speedrun
