#pragma once
// JSON text to events of nlohmann's SAX interface, with the place that the parser has reached.
#include <exception>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "util/text.h"

namespace speedrun {

// An input iterator that tells how far the parser has read.
class JsonCursor {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    JsonCursor(const char* at, const char** reached) : at_(at), reached_(reached) {}
    reference operator*() const { return *at_; }
    JsonCursor& operator++() {
        *reached_ = ++at_;
        return *this;
    }
    JsonCursor operator++(int) {
        const JsonCursor before = *this;
        ++*this;
        return before;
    }
    bool operator==(const JsonCursor& other) const { return at_ == other.at_; }
    bool operator!=(const JsonCursor& other) const { return at_ != other.at_; }

  private:
    const char* at_;
    const char** reached_;
};

// Feeds `consumer` with the events of `text`; `reached` follows the parser through it. The parser is
// iterative: depth costs no stack.
template <typename Consumer>
void read_json_events(std::string_view text, const char*& reached, Consumer& consumer) {
    reached = text.data();
    nlohmann::json::sax_parse(JsonCursor(text.data(), &reached),
                              JsonCursor(text.data() + text.size(), &reached), &consumer);
}

// What a parser's exception says, without the library's "[json.exception...] parse error at line ...: ".
inline std::string json_error_text(const std::exception& error) {
    std::string what = error.what();
    if (const size_t bracket = what.find("] "); bracket != std::string::npos) what.erase(0, bracket + 2);
    const size_t colon = what.find(": ");
    if (what.starts_with("parse error at") && colon != std::string::npos) what.erase(0, colon + 2);
    return printable(what);
}

}  // namespace speedrun
