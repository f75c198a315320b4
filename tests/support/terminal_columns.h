#pragma once
#include <cstddef>
#include <string>

namespace speedrun {

// Terminal columns of a line: code points, as every character used here is one column wide.
inline size_t columns(const std::string& line) {
    size_t n = 0;
    for (const char c : line) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    return n;
}

}  // namespace speedrun
