#pragma once
#include "model/graph/node.h"
#include "ops/cpu/gemm.h"

namespace speedrun {

// Packed operands of the products of y = x w on a CPU, x [rows, in], w [in, out], of `item`-byte elements.
inline Scratch forward_scratch(int64_t rows, int64_t in, int64_t out, int64_t item) {
    const auto packed = ops::cpu::gemm_scratch(rows, in, out, item, ops::cpu::LeftOperand::row_major);
    return {.packed_left = packed.a, .packed_right = packed.b};
}

// Of dx = dy w^T, and of dw = x^T dy or its transpose: `transposed`, where w is stored [out, in].
inline Scratch backward_scratch(int64_t rows, int64_t in, int64_t out, int64_t item, bool transposed) {
    const auto dw = ops::cpu::gemm_scratch(transposed ? out : in, rows, transposed ? in : out, item,
                                           ops::cpu::LeftOperand::transposed);
    return larger(forward_scratch(rows, out, in, item), {.packed_left = dw.a, .packed_right = dw.b});
}

}  // namespace speedrun
