#pragma once
#include <string>
#include <string_view>

namespace speedrun {

// `word` as a shell reads it back, on one line: as it is where nothing in it is special, else in quotes; with
// control characters in $'...'.
std::string shell_word(std::string_view word);

// `text` on one line of a file that others read line by line: '?' for what would end it, and for other
// control characters.
std::string one_line(std::string_view text);

}  // namespace speedrun
