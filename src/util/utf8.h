#pragma once
#include <string>
#include <string_view>

namespace speedrun {

// `text` with U+FFFD in the place of every byte that is not part of well-formed UTF-8 (RFC 3629: no overlong
// forms, no surrogates), and of every control character but '\t' and '\n'.
std::string valid_utf8(std::string_view text);

}  // namespace speedrun
