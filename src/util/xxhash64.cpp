#include "util/xxhash64.h"

#include <fmt/core.h>

namespace speedrun {

std::string hex64(uint64_t value) {
    return fmt::format("{:016x}", value);
}

}  // namespace speedrun
