#pragma once
#include <ATen/core/Tensor.h>

#include "config/config.h"
#include "model/parameters.h"

namespace speedrun {

// The matrix rule: momentum -> orthogonalize -> second moment -> scale -> weight decay -> step. NorMuon,
// arXiv 2510.05491, as train_gpt.py's class NorMuon has it. Each part is a function; NorMuon below puts them
// in order.

// momentum <- lerp(momentum, grad, 1 - mu); update <- lerp(grad, momentum, mu) with Nesterov, else momentum;
// grad <- 0. grad and momentum share a dtype, which both results are rounded to; update has the same number
// of elements, any dtype.
void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update, double mu,
                     bool nesterov);

// Numbers of one application of an update.
struct MatrixStep {
    double lr = 0;     // p -= lr * u
    double decay = 0;  // coefficient of the weight decay, of either kind
    double beta2 = 0;
    int64_t var_reduce_dim = -2;  // the second moment averages squares over it
    NorMuonConfig::SecondMoment second_moment = NorMuonConfig::SecondMoment::vector;
    NorMuonConfig::Scale scale = NorMuonConfig::Scale::restore_norm;
    NorMuonConfig::Decay decay_kind = NorMuonConfig::Decay::none;
};

// For every matrix X of `update` [n, rows, cols] and p of `value` [n, rows, cols]:
//   vector:        v <- lerp(v, mean of X^2 over var_reduce_dim, 1 - beta2); u = X / sqrt(max(v, 1e-10))
//   restore_norm:  u *= ||X||_F / max(||u||_F, 1e-10)
//   cautious:      u += decay * p where u * p >= 0 (arXiv 2510.12402);  decoupled: p *= 1 - decay
//   p -= lr * u, in fp32, rounded once to p's dtype; also written to `copy` where that is defined.
// second_moment is [n, 1, cols] or [n, rows, 1], fp32 or bf16 (undefined without one). Where the reference
// keeps u in bf16 between these lines, here it stays fp32.
void apply_matrix_update(const at::Tensor& update, const at::Tensor& second_moment, const at::Tensor& value,
                         const at::Tensor& copy, const MatrixStep& step);

namespace reference {
// The same on ATen calls: for other devices and dtypes, and for tests.
void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update, double mu,
                     bool nesterov);
void apply_matrix_update(const at::Tensor& update, const at::Tensor& second_moment, const at::Tensor& value,
                         const at::Tensor& copy, const MatrixStep& step);
}  // namespace reference

// Matrices [rows, cols] that NorMuon::step works on at a time: whole rounds of the threads, few enough that
// temporaries stay small.
int64_t matrix_group(int64_t rows, int64_t cols);

// The rule and its state for one bank.
class NorMuon {
  public:
    NorMuon(const NorMuonConfig& config, const OptimParamConfig& row, const Parameter& parameter);

    // One step; the gradient is zero and the compute copy up to date afterwards. lr = config.lr * lr_scale.
    void step(Parameter& parameter, double lr_scale, double mu);

    const at::Tensor& momentum() const { return momentum_; }  // the bank's shape, the gradient's dtype
    const at::Tensor& second_moment() const { return second_moment_; }  // see apply_matrix_update

  private:
    MatrixStep numbers(at::ScalarType dtype, double lr_scale) const;

    NorMuonConfig config_;
    OptimParamConfig row_;
    at::Tensor momentum_, second_moment_;
};

}  // namespace speedrun
