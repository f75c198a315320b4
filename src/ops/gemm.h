#pragma once
#include <ATen/core/Tensor.h>

namespace speedrun::ops {

// c = a b, or c += a b. a [M, K], b [K, N], c [M, N]; a and b may be transposed views (one of their strides is 1), c is
// row-major. a and b share a dtype (fp32 or bf16); c is fp32, or bf16 where a and b are. Products are accumulated in fp32.
// CPU: tiles of ATen's brgemm (AVX-512, AVX512-BF16, AMX chosen at run time); machines without AVX-512: ATen's matmul.
// CUDA: ATen's matmul (cuBLASLt). The result does not depend on timing, only on the number of threads.
void gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, bool accumulate = false);

}  // namespace speedrun::ops
