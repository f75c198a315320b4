#include "util/utf8.h"

namespace speedrun {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

bool is_control(uint32_t code_point) {
    return (code_point < 0x20 && code_point != '\t' && code_point != '\n') || code_point == 0x7f;
}

}  // namespace

std::string valid_utf8(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    while (!text.empty()) {
        const Utf8Character character = first_character(text);
        if (character.bytes == 0 || is_control(character.code_point)) {
            result += kReplacement;
            text.remove_prefix(1);
        } else {
            result += text.substr(0, character.bytes);
            text.remove_prefix(character.bytes);
        }
    }
    return result;
}

}  // namespace speedrun
