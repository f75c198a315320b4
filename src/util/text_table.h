#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace speedrun {

// Rows of cells, the first row the titles.
using TextTable = std::vector<std::vector<std::string>>;

// Columns parted by two spaces; numbers (all columns but the first) to the right.
std::string plain_table(const TextTable& rows);
std::string markdown_table(const TextTable& rows);  // of cells that say what they say: see markdown_text

// `text` on one line of Markdown that shows it as it is: nothing in it begins a cell, a link, HTML or code.
std::string markdown_text(std::string_view text);

}  // namespace speedrun
