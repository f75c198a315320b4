#pragma once
#include <span>
#include <string>
#include <string_view>

namespace speedrun {

// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`.
int edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to `word`, "" where there is none; the first of equals.
std::string nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace speedrun
