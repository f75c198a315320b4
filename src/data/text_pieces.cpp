#include "data/text_pieces.h"

namespace speedrun {
namespace {

// Length of 's, 't, 're, 've, 'm, 'll or 'd at the start of `text`; 0 if there is none.
size_t contraction(std::string_view text) {
    if (text.size() < 2 || text[0] != '\'') return 0;
    const char a = text[1];
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (text.size() < 3) return 0;
    const char b = text[2];
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

// End of the run of `cls` that includes the character before `at`.
size_t run_end(std::string_view text, size_t at, CharClass cls, const CharClasses& classes) {
    while (at < text.size()) {
        const auto next = classes.at(text.substr(at));
        if (next.cls != cls) break;
        at += next.bytes;
    }
    return at;
}

// White space: all of it at the end of the text; else all but the last character, which goes with what
// follows if it is a space, and is a piece of its own if not.
size_t space_end(std::string_view text, size_t at, const CharClasses& classes) {
    size_t last = at, end = at;
    while (end < text.size()) {
        const auto next = classes.at(text.substr(end));
        if (next.cls != CharClass::space) break;
        last = end;
        end += next.bytes;
    }
    return end == text.size() || last == at ? end : last;
}

}  // namespace

size_t piece_end(std::string_view text, size_t at, const CharClasses& classes) {
    if (const size_t length = contraction(text.substr(at))) return at + length;
    const size_t body = at + (text[at] == ' ' ? 1 : 0);
    if (body < text.size()) {
        const auto first = classes.at(text.substr(body));
        if (first.cls != CharClass::space) return run_end(text, body + first.bytes, first.cls, classes);
    }
    return space_end(text, at, classes);
}

}  // namespace speedrun
