#pragma once
// "name", "name[3,1]", "name[6:12]": what WeightRef, elements and outputs of nets share.
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/notation.h"

namespace speedrun {

// An index, or a range of them.
struct IndexRange {
    int64_t begin = 0, end = 1;
    bool whole = false;  // was written as a range
};

// A name with the indices behind it, still text: "scalars.sa" and {"i", "0"}.
struct IndexedName {
    std::string name;
    std::vector<std::string> indices;
};

// From the front of `text`, which goes on behind it. Names may hold dots. Throws NotationError.
IndexedName take_indexed_name(std::string_view& text);

// "3", "i", "2i+1", and where `ranges` "6:12", of a dimension of `size`. Throws NotationError.
IndexRange parse_index(const std::string& text, int64_t size, const NotationScope& scope, bool ranges);

// The parameter of that name, or NotationError.
const ParamConfig& find_param(const std::string& name, const ModelConfig& model);

// Indices into the first dimensions; the last of them may be a range.
WeightRef weight_at(const ParamConfig& param, std::span<const std::string> indices,
                    const NotationScope& scope);

}  // namespace speedrun
