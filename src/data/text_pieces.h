#pragma once
#include <cstddef>
#include <string_view>

#include "data/unicode_classes.h"

namespace speedrun {

// End of the piece that starts at text[at] when GPT-2's pattern splits the text,
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// the alternatives tried in that order. at < text.size().
size_t piece_end(std::string_view text, size_t at, const CharClasses& classes);

}  // namespace speedrun
