#pragma once
#include <ATen/core/Tensor.h>

#include "config/config.h"
#include "ops/cuda/gpu.h"
#include "ops/step_numbers.h"

namespace speedrun::ops {

// Parts that rules of matrices are made of: the momentum that comes first, and what comes last, from an
// update to the parameter.

// grad <- 0 after, by form,
// lerp (train_gpt.py's class NorMuon; https://github.com/KellerJordan/Muon):
//     m <- mu m + (1 - mu) g; update <- mu m + (1 - mu) g with Nesterov, else m
// accumulate (MuonVariants; torch.optim.SGD): m <- mu m + g; update <- g + mu m with Nesterov, else m
// Both results are rounded to momentum's dtype, which is the gradient's or fp32; update has the same number
// of elements, any dtype.
void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update,
                     const StepNumber& mu, const MatrixConfig::Momentum& config);

// Numbers of one application of an update. Those of MatrixConfig have its names.
struct MatrixStep {
    StepNumber lr = 0;     // p -= lr * u
    StepNumber decay = 0;  // c of the weight decay, of either kind
    bool moments = false;  // a second moment of rows or columns
    double beta2 = 0, eps = 1e-10;
    MatrixConfig::EpsForm eps_form = MatrixConfig::EpsForm::clamp;
    StepNumber correction = 1;                              // the second moment counts divided by it
    int64_t var_reduce_dim = -2;                            // and averages squares over this dimension
    MatrixConfig::Scale scale = MatrixConfig::Scale::none;  // after the second moment
    double factor = 1;                                      // of u, last
    MatrixConfig::Decay decay_kind = MatrixConfig::Decay::none;
    at::Tensor lr_muls = {};  // [n], fp32: of each matrix, multiply lr; undefined: 1
    // [n, rows, cols], int16: the lower halves of fp32 numbers whose upper halves are `value`, which then is
    // bf16 and is cut off, not rounded (record 57); undefined: none
    at::Tensor mantissa = {};
};

// For every matrix X of `update` [n, rows, cols] and p of `value` [n, rows, cols]:
//   moments:       v <- lerp(v, mean of X^2 over var_reduce_dim, 1 - beta2);
//                  clamp: u = X / sqrt(max(v, eps)) as in record 43; add: u = X / (sqrt(v) + eps) as in arXiv
//                  2510.05491, Algorithm 1, line 9
//   restore_norm:  u *= ||X||_F / max(||u||_F, 1e-10)
//   paper:         u *= 0.2 sqrt(rows cols) / max(||u||_F, 1e-10), Algorithm 1, line 10 there
//   u *= factor * its matrix's number of `factors`
//   cautious:      u += decay * p where u * p >= 0 (arXiv 2510.12402);  decoupled: p *= 1 - decay
//   p -= lr * u, in fp32, rounded once to p's dtype, or kept whole by `mantissa`; p's value is also written
//   to `copy` where that is defined.
// second_moment is [n, 1, cols] or [n, rows, 1], fp32 or bf16 (undefined without moments; then scale is
// none). factors is [n], fp32, or undefined. Where the reference keeps u in bf16 between these lines, here it
// stays fp32.
void apply_matrix_update(const at::Tensor& update, const at::Tensor& factors, const at::Tensor& second_moment,
                         const at::Tensor& value, const at::Tensor& copy, const MatrixStep& step);

namespace reference {
// The same on ATen calls: for other devices and dtypes, and for tests.
void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update, double mu,
                     const MatrixConfig::Momentum& config);
void apply_matrix_update(const at::Tensor& update, const at::Tensor& factors, const at::Tensor& second_moment,
                         const at::Tensor& value, const at::Tensor& copy, const MatrixStep& step);
// u there, up to and with `factors`: for parts between these lines and the step. fp32.
at::Tensor scaled_update(const at::Tensor& update, const at::Tensor& factors, const at::Tensor& second_moment,
                         const MatrixStep& step);
}  // namespace reference

// ||X||_F of each matrix of x [n, rows, cols]: [n], fp32.
at::Tensor matrix_norms(const at::Tensor& x);

// Matrices [rows, cols] to work on at a time: whole rounds of the threads, few enough that temporaries stay
// small.
int64_t matrix_group(int64_t rows, int64_t cols);

namespace cuda {
void momentum_update(const Gpu& gpu, const at::Tensor& grad, const at::Tensor& momentum,
                     const at::Tensor& update, const StepNumber& mu, const MatrixConfig::Momentum& config);
void apply_matrix_update(const Gpu& gpu, const at::Tensor& update, const at::Tensor& factors,
                         const at::Tensor& second_moment, const at::Tensor& value, const at::Tensor& copy,
                         const MatrixStep& step);
}  // namespace cuda

}  // namespace speedrun::ops
