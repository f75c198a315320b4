#pragma once
#include <string>
#include <vector>

namespace speedrun {

// printf into a string, of at most 511 bytes.
[[gnu::format(printf, 1, 2)]] std::string format_text(const char* format, ...);

// Rows of cells, the first row the titles.
using TextTable = std::vector<std::vector<std::string>>;

// Columns parted by two spaces; numbers (all columns but the first) to the right.
std::string plain_table(const TextTable& rows);
std::string markdown_table(const TextTable& rows);

}  // namespace speedrun
