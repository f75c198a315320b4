#pragma once
#include <c10/core/ScalarType.h>

#include "config/config.h"

namespace speedrun {

// The dtype of tensors that a config calls `dtype`.
inline at::ScalarType scalar_type(Dtype dtype) {
    return dtype == Dtype::bf16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace speedrun
