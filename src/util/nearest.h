#pragma once
#include <span>
#include <string>
#include <string_view>

namespace speedrun {

// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`.
int edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to `word`, the first of equals; "" where every one differs from it in more than half
// of the letters of the longer of the two.
std::string nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace speedrun
