#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <cstddef>

#include "oracle.h"

namespace speedrun {

// A matrix of any floating dtype in fp64.
inline oracle::Matrix to_oracle(const at::Tensor& x) {
    const at::Tensor wide = x.to(at::kDouble).contiguous();
    oracle::Matrix out(static_cast<size_t>(x.size(0)), static_cast<size_t>(x.size(1)));
    std::copy_n(wide.const_data_ptr<double>(), wide.numel(), out.at.begin());
    return out;
}

// The largest difference between two tensors of one shape; 0 where they are empty.
inline double max_difference(const at::Tensor& a, const at::Tensor& b) {
    return a.numel() == 0 ? 0 : (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace speedrun
