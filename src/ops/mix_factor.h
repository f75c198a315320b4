#pragma once
// Factors of a mix as rows of numbers, and as the ATen paths and the kernels take them.
#include <ATen/ATen.h>

#include "ops/cuda/addresses.h"
#include "ops/mix.h"
#include "util/error.h"

namespace speedrun::ops {

// On a CPU: factor[t, column] + offset, 1 where there is none.
struct FactorRows {
    const float* data = nullptr;
    float* gradient = nullptr;
    int64_t stride = 0, gradient_stride = 0, columns = 1;
    float offset = 0;

    float at(int64_t t, int64_t column) const { return data ? offset + data[t * stride + column] : 1; }
};

inline void check_factor(const MixSource& source, const at::Tensor& y) {
    const at::Tensor& factor = source.factor;
    check(factor.dim() == 2 && factor.size(0) == y.size(0) && factor.stride(1) == 1 &&
              factor.scalar_type() == at::kFloat && y.numel() / y.size(0) % factor.size(1) == 0,
          "mix: a factor is fp32 [T, C], and C divides the channels");
}

inline FactorRows factor_rows(const MixSource& source, const at::Tensor& gradient, const at::Tensor& y) {
    if (!source.factor.defined()) return {};
    check_factor(source, y);
    FactorRows rows{.data = source.factor.const_data_ptr<float>(),
                    .stride = source.factor.stride(0),
                    .columns = source.factor.size(1),
                    .offset = static_cast<float>(source.offset)};
    if (gradient.defined()) {
        check(gradient.sizes() == source.factor.sizes() && gradient.stride(1) == 1,
              "mix: dfactor is no factor");
        rows.gradient = gradient.data_ptr<float>();
        rows.gradient_stride = gradient.stride(0);
    }
    return rows;
}

inline speedrun::cuda::Factor kernel_factor(const FactorRows& rows) {
    check(rows.gradient == nullptr || rows.gradient_stride == rows.stride,
          "mix: dfactor has other strides than its factor");
    return {rows.data, rows.gradient, rows.stride, static_cast<int32_t>(rows.columns), rows.offset};
}

}  // namespace speedrun::ops
