#pragma once
// Tensors as the kernels take them (kernels.h), checked: one that does not fit is an InternalError.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "ops/cuda/kernels.h"
#include "util/error.h"

namespace speedrun::ops::cuda {

namespace raw = speedrun::cuda;

inline raw::Scalar scalar(const at::Tensor& x, const char* what) {
    check(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
          std::string(what) + ": neither fp32 nor bf16");
    return x.scalar_type() == at::kFloat ? raw::Scalar::f32 : raw::Scalar::bf16;
}

// [T, ...] as rows; an undefined tensor as none.
inline raw::Rows rows(const at::Tensor& x, at::IntArrayRef sizes, const char* what) {
    if (!x.defined()) return {};
    check(x.sizes() == sizes, std::string(what) + ": another shape than expected");
    int64_t expected = 1;
    for (int64_t dim = x.dim() - 1; dim >= 1; --dim) {
        check(x.size(dim) == 1 || x.stride(dim) == expected,
              std::string(what) + ": rows that are not contiguous");
        expected *= x.size(dim);
    }
    return {x.data_ptr(), x.stride(0), scalar(x, what)};
}

inline raw::Shape shape_of(const at::Tensor& x) {
    return {x.size(0), x.size(0) == 0 ? 0 : x.numel() / x.size(0)};
}

inline raw::Flat flat(const at::Tensor& x, int64_t count, const char* what) {
    if (!x.defined()) return {};
    check(x.numel() == count && x.is_contiguous(),
          std::string(what) + ": not contiguous, or of another size");
    return {x.data_ptr(), scalar(x, what)};
}

inline float* floats(const at::Tensor& x, int64_t count, const char* what) {
    if (!x.defined()) return nullptr;
    check(x.scalar_type() == at::kFloat, std::string(what) + ": not fp32");
    return static_cast<float*>(flat(x, count, what).data);
}

}  // namespace speedrun::ops::cuda
