#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops {

// out[t] = table[ids[t]]. table [V, d] and out [T, d] fp32 or bf16 each, rows contiguous, any row stride; ids
// int32 [T], contiguous. On the CPU an id outside [0, V) is an InternalError.
void embedding(const at::Tensor& table, const at::Tensor& ids, const at::Tensor& out);

// dtable[ids[t]] += dout[t]. dout [T, d] and dtable [V, d] fp32 or bf16 each. Tokens with the same id are
// summed in fp32 in token order and added once; only the rows named by ids are read or written, so the cost
// is O(T d), not O(V d).
void embedding_backward(const at::Tensor& dout, const at::Tensor& ids, const at::Tensor& dtable);

// The same on plain ATen calls (any device; fp64 too), for tests and for devices without a fused path.
namespace reference {
void embedding(const at::Tensor& table, const at::Tensor& ids, const at::Tensor& out);
void embedding_backward(const at::Tensor& dout, const at::Tensor& ids, const at::Tensor& dtable);
}  // namespace reference

namespace cuda {
void embedding(const Gpu& gpu, const at::Tensor& table, const at::Tensor& ids, const at::Tensor& out);
void embedding_backward(const Gpu& gpu, const at::Tensor& dout, const at::Tensor& ids,
                        const at::Tensor& dtable);
}  // namespace cuda

}  // namespace speedrun::ops
