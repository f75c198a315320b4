#pragma once
#include <ATen/core/Tensor.h>

#include "config/config.h"

namespace speedrun {

// How far SOAP's direction s is trusted in place of the momentum r, with the gradient g, track 3's result 16:
// clamp((cos(s, r) - agreement) / (1 - agreement), 0, 1) clamp(cos(s, g) / max(cos(r, g), 1e-8), 0, 1),
// between the bounds of `step`. All [n, rows, cols], fp32; the result [n].
at::Tensor trust(const at::Tensor& r, const at::Tensor& s, const at::Tensor& g,
                 const MatrixConfig::Direction::Gate& gate, int64_t step);

}  // namespace speedrun
