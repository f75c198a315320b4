#include "util/shell_words.h"

#include <algorithm>

namespace speedrun {
namespace {

bool is_control(char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

bool is_plain(char c) {
    constexpr std::string_view kSafe = "_-+=./,:@%[]";
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kSafe.find(c) != std::string_view::npos;
}

// $'...'
std::string with_escapes(std::string_view word) {
    constexpr std::string_view kHex = "0123456789abcdef";
    std::string quoted = "$'";
    for (const char c : word) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '\n') {
            quoted += "\\n";
        } else if (is_control(c)) {
            quoted += std::string("\\x") + kHex[byte >> 4] + kHex[byte & 15];
        } else {
            if (c == '\'' || c == '\\') quoted += '\\';
            quoted += c;
        }
    }
    return quoted + "'";
}

}  // namespace

std::string shell_word(std::string_view word) {
    if (std::ranges::any_of(word, is_control)) return with_escapes(word);
    if (!word.empty() && std::ranges::all_of(word, is_plain)) return std::string(word);
    std::string quoted = "'";
    for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return quoted + "'";
}

std::string one_line(std::string_view text) {
    std::string line(text);
    std::ranges::replace_if(line, is_control, '?');
    return line;
}

}  // namespace speedrun
