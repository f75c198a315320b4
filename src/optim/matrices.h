#pragma once
// A parameter as the matrices that a rule updates.
#include <ATen/core/Tensor.h>

#include <algorithm>

#include "config/config.h"
#include "model/parameters.h"
#include "ops/optim/matrix_update.h"

namespace speedrun {

// lr and decay of a step, and nothing else: what every rule of matrices has.
ops::MatrixStep plain_step(const MatrixConfig& config, const OptimParamConfig& row, double lr_scale);

// A parameter as matrices [n, rows, cols]: all of them, or a group that follows each other.
struct Matrices {
    at::Tensor value, grad, copy;  // copy is undefined where nothing but the value is read
    Matrices(const Parameter& part, const OptimParamConfig& row);
    // body(of), group after group; of(x) is the group's part of a tensor [n, ...], undefined of an undefined
    // one.
    template <class Body>
    void for_each_group(const Body& body) const {
        const int64_t count = value.size(0), group = ops::matrix_group(value.size(1), value.size(2));
        for (int64_t begin = 0; begin < count; begin += group) {
            body([&](const at::Tensor& x) {
                return x.defined() ? x.narrow(0, begin, std::min(group, count - begin)) : x;
            });
        }
    }
};

}  // namespace speedrun
