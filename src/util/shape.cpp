#include "util/shape.h"

#include <functional>
#include <numeric>
#include <vector>

#include "util/text.h"

namespace speedrun {

int64_t element_count(std::span<const int64_t> shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::optional<int64_t> element_count_up_to(int64_t most, std::span<const int64_t> shape) {
    int64_t count = 1;
    for (const int64_t size : shape) {
        if (size < 0 || (size > 0 && count > most / size)) return std::nullopt;
        count *= size;
    }
    return count;
}

std::string shape_text(std::span<const int64_t> shape) {
    std::vector<std::string> sizes;
    for (const int64_t size : shape) sizes.push_back(std::to_string(size));
    return "[" + joined(sizes) + "]";
}

}  // namespace speedrun
