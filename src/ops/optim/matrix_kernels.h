#pragma once
#include "ops/optim/matrix_update.h"

// Fused CPU forms of the parts in matrix_update.h: fp32 or bf16 contiguous tensors, fp32 arithmetic. Work is
// divided into blocks that do not depend on the number of threads, so neither do results.
namespace speedrun::ops::cpu {

void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update, double mu,
                     const MatrixConfig::Momentum& config);
void apply_matrix_update(const at::Tensor& update, const at::Tensor& factors, const at::Tensor& second_moment,
                         const at::Tensor& value, const at::Tensor& copy, const MatrixStep& step);

}  // namespace speedrun::ops::cpu
