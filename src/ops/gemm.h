#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace speedrun::ops {

// c = a b, or c += a b. a [M, K], b [K, N], c [M, N]; a and b may be transposed views (one of their strides
// is 1), c is row-major. a and b share a dtype (fp32 or bf16); c is fp32, or bf16 where a and b are. Products
// are accumulated in fp32. CPU: tiles of ATen's brgemm (AVX2, AVX-512, AVX512-BF16, AMX chosen at run time);
// machines without AVX512-BF16: bf16 operands widened to fp32. CUDA: ATen's matmul (cuBLASLt). The result
// does not depend on timing, only on the number of threads. Throws InternalError where shapes, dtypes or
// strides do not fit.
void gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, bool accumulate = false);

// c[i] = alpha a[i] b[i] + beta addend[i], like at::baddbmm. a [B, M, K], b [B, K, N], addend and c [B, M,
// N], all of one dtype (fp32 or bf16); the matrices are as in `gemm`. addend undefined (with beta 0) or c
// itself is allowed; c must not share memory with a or b. Everything is computed in fp32 and rounded once.
void batched_gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, double alpha = 1,
                  double beta = 0, const at::Tensor& addend = {});

// c[i] = alpha x[i] x[i]^T + beta addend[i], the addend symmetric: X X^T and, of a symmetric A, b A + c A A.
// x [B, M, K], addend and c [B, M, M], c apart from both. About half the work of batched_gemm, as tiles below
// the diagonal are copied from above it: on a CPU, with its bits, and on a GPU for contiguous bf16 with M and
// K multiples of 8; otherwise on a GPU the whole product.
void batched_gram(const at::Tensor& x, const at::Tensor& c, double alpha = 1, double beta = 0,
                  const at::Tensor& addend = {});

// Which arithmetic `gemm` uses for CPU tensors of this dtype here, in words, e.g. "oneDNN brgemm
// (AVX512-BF16)".
std::string gemm_backend(at::ScalarType dtype);

}  // namespace speedrun::ops
