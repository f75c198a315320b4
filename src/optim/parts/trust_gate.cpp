#include "optim/parts/trust_gate.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "ops/optim/matrix_update.h"
#include "optim/parts/part.h"

namespace speedrun {
namespace {

constexpr double kLeastCosine = 1e-8;

at::Tensor cosines(const at::Tensor& a, const at::Tensor& b) {
    return inner_products(a, b) / (ops::matrix_norms(a) * ops::matrix_norms(b)).clamp_min(kLeastCosine);
}

double least_trust(const MatrixConfig::Direction::Gate& gate, int64_t step) {
    if (step < gate.floor_until) return gate.floor;
    if (step >= gate.floor_end) return 0;
    return gate.floor * static_cast<double>(gate.floor_end - step) /
           static_cast<double>(gate.floor_end - gate.floor_until);
}

}  // namespace

at::Tensor trust(const at::Tensor& r, const at::Tensor& s, const at::Tensor& g,
                 const MatrixConfig::Direction::Gate& gate, int64_t step) {
    const at::Tensor agrees = (cosines(s, r) - gate.agreement) / (1 - gate.agreement);
    const at::Tensor descends = cosines(s, g) / cosines(r, g).clamp_min(kLeastCosine);
    return (agrees.clamp(0, 1) * descends.clamp(0, 1))
        .clamp(least_trust(gate, step), step < gate.cap_until ? gate.cap : 1);
}

}  // namespace speedrun
