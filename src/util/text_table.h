#pragma once
#include <string>
#include <vector>

namespace speedrun {

// Rows of cells, the first row the titles.
using TextTable = std::vector<std::vector<std::string>>;

// Columns parted by two spaces; numbers (all columns but the first) to the right.
std::string plain_table(const TextTable& rows);
std::string markdown_table(const TextTable& rows);

}  // namespace speedrun
