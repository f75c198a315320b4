#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// to[t] = from[t] * table[ids[t]], element by element, for the signs of bigram rows (record 83). from and to
// [T, d] of one dtype, table [R, d], each fp32 or bf16, rows contiguous, any row stride; ids int32 [T],
// contiguous. to may be from. On the CPU an id outside [0, R) is an InternalError.
void multiply_rows(const at::Tensor& from, const at::Tensor& table, const at::Tensor& ids,
                   const at::Tensor& to);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void multiply_rows(const at::Tensor& from, const at::Tensor& table, const at::Tensor& ids,
                   const at::Tensor& to);
}  // namespace reference

namespace cuda {
void multiply_rows(const Gpu& gpu, const at::Tensor& from, const at::Tensor& table, const at::Tensor& ids,
                   const at::Tensor& to);
}  // namespace cuda

}  // namespace speedrun::ops
