#pragma once
#include <ATen/core/Tensor.h>

#include "ops/cuda/gpu.h"

namespace speedrun::ops::cuda {

// Whether gram() takes x [n, rows, cols]: bf16, contiguous, rows and cols multiples of 8.
bool takes_gram(const at::Tensor& x);

// ops::batched_gram (ops/gemm.h) of matrices that it takes.
void gram(const Gpu& gpu, const at::Tensor& x, const at::Tensor& c, double alpha, double beta,
          const at::Tensor& addend);

}  // namespace speedrun::ops::cuda
