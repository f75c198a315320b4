#include "util/utf8.h"

#include <algorithm>
namespace speedrun {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Control characters of ASCII and of Latin-1 (U+0080 to U+009F, some of which terminals obey), and what is no
// character at all.
bool is_unwanted(uint32_t code_point) {
    const bool control = code_point < 0x20 || (code_point >= 0x7f && code_point < 0xA0);
    return control || code_point == 0xFFFE || code_point == 0xFFFF;
}

std::string replaced(std::string_view text, std::string_view kept, std::string_view replacement) {
    std::string result;
    result.reserve(text.size());
    while (!text.empty()) {
        const auto [bytes, code_point] = first_character(text);
        const std::string_view character = text.substr(0, std::max<size_t>(bytes, 1));
        const bool keep = bytes > 0 && (!is_unwanted(code_point) || kept.find(character) != kept.npos);
        result += keep ? character : replacement;
        text.remove_prefix(character.size());
    }
    return result;
}

}  // namespace

std::string valid_utf8(std::string_view text) {
    return replaced(text, "\t\n", kReplacement);
}

std::string terminal_text(std::string_view text) {
    return replaced(text, "\n", "?");
}

}  // namespace speedrun
