#pragma once
#include <ATen/core/Tensor.h>

#include "config/config.h"
#include "ops/cuda/gpu.h"
#include "ops/step_numbers.h"

namespace speedrun::ops {

using AdamDecay = AdamConfig::Decay;

// Numbers of one Adam step.
struct AdamStep {
    double beta1 = 0, beta2 = 0;
    StepNumber eps = 0;
    StepNumber step_size = 0;  // lr * sqrt(1 - beta2^t) / (1 - beta1^t)
    StepNumber decay = 0;      // the share of the value that decay takes
    AdamDecay decay_kind = AdamDecay::decoupled;
};

// m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g^2; u = step_size * m / (sqrt(v) + eps);
// decoupled: p <- (1 - decay) p - u; cautious: p <- p - (u + decay p), decay only where u p >= 0, or > 0
// (records 50 and 53, DistAdam.step); g <- 0. As in train_gpt.py's class DistAdam, compiled: one pass in
// fp32, with the unrounded m and v in the step, each of m, v, p rounded once to its dtype. value and grad
// share a dtype, exp_avg and exp_avg_sq another (fp32 or bf16 each).
void adam_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& exp_avg,
                 const at::Tensor& exp_avg_sq, const AdamStep& step);

namespace reference {
// The same on ATen calls: for other devices and dtypes, and for tests.
void adam_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& exp_avg,
                 const at::Tensor& exp_avg_sq, const AdamStep& step);
}  // namespace reference

namespace cuda {
// `copy`: the compute copy, written too where it is defined.
void adam_update(const Gpu& gpu, const at::Tensor& value, const at::Tensor& grad, const at::Tensor& exp_avg,
                 const at::Tensor& exp_avg_sq, const at::Tensor& copy, const AdamStep& step);
}  // namespace cuda

}  // namespace speedrun::ops
