#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace speedrun {

// A character of UTF-8 text.
struct Utf8Character {
    size_t bytes;  // 0: no character
    uint32_t code_point;
};

// Bytes of the character that begins with `lead`, going by that byte alone.
constexpr size_t utf8_length(char lead) {
    const auto byte = static_cast<unsigned char>(lead);
    return byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
}

// Whether a byte goes on with a character that another byte has begun.
constexpr bool continues_character(char c) {
    return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

// The character that `text` (not empty) begins with, where it begins with a well-formed one (RFC 3629: no
// overlong forms, no surrogates, nothing beyond U+10FFFF).
constexpr Utf8Character first_character(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text[0]);
    if (lead < 0x80) return {1, lead};
    const size_t bytes = utf8_length(text[0]);
    if (lead < 0xC2 || lead > 0xF4 || text.size() < bytes) return {0, 0};
    uint32_t code_point = lead & (0xFFu >> (bytes + 1));
    for (size_t i = 1; i < bytes; ++i) {
        if (!continues_character(text[i])) return {0, 0};
        code_point = code_point << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
    }
    constexpr uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    if (code_point < smallest[bytes] || code_point > 0x10FFFF || surrogate) return {0, 0};
    return {bytes, code_point};
}

// `text` with U+FFFD in the place of every byte that is not part of well-formed UTF-8 (RFC 3629: no overlong
// forms, no surrogates), of every control character but '\t' and '\n', and of U+FFFE and U+FFFF: XML has none
// of them.
std::string valid_utf8(std::string_view text);

// `text` for a terminal: '?' in their place, and in that of '\t'.
std::string terminal_text(std::string_view text);

}  // namespace speedrun
