#pragma once
#include <ATen/core/Tensor.h>

namespace speedrun::ops::reference {

// What the ATen paths compute in: fp64 for fp64 tensors, fp32 for all others.
inline at::Tensor wide(const at::Tensor& x) {
    return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

}  // namespace speedrun::ops::reference
