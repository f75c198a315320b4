#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "comm/communicator.h"

namespace speedrun {

// What the CPU's collectives can add up.
enum class Element { f32, f64, bf16, i64 };
int64_t element_size(Element element);  // bytes

// result[i] = sources[0][i] op sources[1][i] op ..., in this order, i < count. bf16 is widened to fp32 and
// rounded once, to nearest even. A NaN in any source makes the result one. `result` may be one of the
// sources; all are aligned to their element.
void combine(Element element, ReduceOp op, std::span<const std::byte* const> sources, int64_t count,
             std::byte* result);

}  // namespace speedrun
