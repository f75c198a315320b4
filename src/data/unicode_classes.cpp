#include "data/unicode_classes.h"

#include <algorithm>

namespace speedrun {
namespace {

constexpr uint32_t kCodePoints = 0x110000;

struct Range {
    uint32_t first, last;
};
#include "data/unicode_ranges.inc"

// Length of the well-formed UTF-8 sequence `text` starts with, 0 if there is none, and its code point.
struct Decoded {
    size_t bytes;
    uint32_t code_point;
};

Decoded decode(std::string_view text) {
    const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
    const uint32_t lead = byte(0);
    const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || text.size() < bytes) return {0, 0};
    uint32_t code_point = lead & (0xFFu >> (bytes + 1));
    for (size_t i = 1; i < bytes; ++i) {
        if ((byte(i) & 0xC0) != 0x80) return {0, 0};
        code_point = code_point << 6 | (byte(i) & 0x3F);
    }
    constexpr uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    if (code_point < smallest[bytes] || code_point >= kCodePoints || surrogate) return {0, 0};
    return {bytes, code_point};
}

}  // namespace

CharClasses::CharClasses() : table_(std::make_unique<CharClass[]>(kCodePoints)) {
    for (const Range& r : kLetters) set(r.first, r.last, CharClass::letter);
    for (const Range& r : kNumbers) set(r.first, r.last, CharClass::number);
    for (const Range& r : kSpaces) set(r.first, r.last, CharClass::space);
    std::copy_n(table_.get(), ascii_.size(), ascii_.begin());
}

void CharClasses::set(uint32_t first, uint32_t last, CharClass cls) {
    std::fill(table_.get() + first, table_.get() + last + 1, cls);
}

CharClasses::Char CharClasses::multibyte(std::string_view text) const {
    const Decoded d = decode(text);
    return d.bytes == 0 ? Char{CharClass::other, 1} : Char{table_[d.code_point], d.bytes};
}

}  // namespace speedrun
