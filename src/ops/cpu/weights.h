#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"

namespace speedrun::ops::cpu {

// A small contiguous weight (a gate's) as fp32.
inline std::vector<float> as_floats(const at::Tensor& w, const char* what) {
    std::vector<float> floats(static_cast<size_t>(w.numel()));
    with_dtype(w.scalar_type(),
               [&]<class W>(W) { scale(flat<const W>(w, w.numel(), what), 1.0F, floats.data(), w.numel()); });
    return floats;
}

}  // namespace speedrun::ops::cpu
