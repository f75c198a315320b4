#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/config.h"

namespace speedrun {

// Which matrices of a part of a parameter have the direction of optimizer.matrix, and which of those are
// gated: per_matrix_direction of its row, in turn.
class DirectionUses {
  public:
    explicit DirectionUses(const OptimParamConfig& row);

    // How many have it: dimension 0 of what is kept for them.
    int64_t count() const { return before_.back(); }

    // Those of matrices that follow each other.
    struct Group {
        int64_t begin = 0, count = 0;  // among those that have the direction
        at::Tensor index;              // where they are; undefined: all have it
        at::Tensor gated;              // [count, 1, 1], bool; undefined: none is
        // Of matrices [n, ...] of the group.
        at::Tensor take(const at::Tensor& x) const;
        // Of what is kept, [count(), ...].
        at::Tensor of(const at::Tensor& state) const;
    };
    // Of the `size` matrices from `begin` on.
    Group group(int64_t begin, int64_t size, at::Device device) const;

  private:
    std::vector<int64_t> before_;          // [matrices + 1]: how many in front of each have it
    std::vector<int64_t> chosen_, gated_;  // of those that have it: which they are; 1 where gated
};

}  // namespace speedrun
