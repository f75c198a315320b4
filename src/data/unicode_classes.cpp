#include "data/unicode_classes.h"

#include <algorithm>

#include "util/utf8.h"

namespace speedrun {
namespace {

constexpr uint32_t kCodePoints = 0x110000;

struct Range {
    uint32_t first, last;
};
#include "data/unicode_ranges.inc"

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
    const Utf8Character c = first_character(text);
    return c.bytes == 0 ? Char{CharClass::other, 1} : Char{table_[c.code_point], c.bytes};
}

}  // namespace speedrun
