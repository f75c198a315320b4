#pragma once
// The header of a safetensors file: JSON text to a list of tensors. Used by safetensors.cpp only.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace speedrun {

struct SafetensorsEntry {
    std::string name, dtype;
    std::vector<int64_t> shape;
    uint64_t begin = 0, end = 0;  // bytes, from the end of the header
    size_t position = 0;          // in the header text, just behind the entry's name
};

struct SafetensorsHeader {
    std::vector<SafetensorsEntry> entries;
    std::map<std::string, std::string> metadata;
};

// Thrown at a mistake; `position` is in the header text, near the mistake.
struct SafetensorsSyntax {
    size_t position = 0;
    std::string what;
};

// Strict: objects and keys of the format only, no key twice, no number that is not a non-negative integer.
SafetensorsHeader parse_safetensors_header(std::string_view text);

}  // namespace speedrun
