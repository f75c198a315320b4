#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace speedrun {

// Elements of a tensor of this shape; 1 where it has no dimensions.
int64_t element_count(std::span<const int64_t> shape);

// The same, or none where they are more than `most`, or where a dimension is negative.
std::optional<int64_t> element_count_up_to(int64_t most, std::span<const int64_t> shape);

// "[4, 768]"
std::string shape_text(std::span<const int64_t> shape);

}  // namespace speedrun
