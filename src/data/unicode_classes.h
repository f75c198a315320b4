#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

namespace speedrun {

// Classes the GPT-2 pattern tells apart: \p{L}, \p{N}, \s, and the rest.
enum class CharClass : uint8_t { other, letter, number, space };

// Class of every code point, as tiktoken 0.14.0 has them (Unicode 16). A committed table and not a regex
// library's, so that the same text gives the same tokens on every machine: Unicode 14, which PCRE2 10.42 has,
// lacks 9,272 of these letters.
class CharClasses {
  public:
    CharClasses();

    struct Char {
        CharClass cls;
        size_t bytes;
    };
    // The character at the start of `text` (not empty), which is UTF-8. A byte that starts no well-formed
    // character is one of class `other` by itself.
    Char at(std::string_view text) const {
        const auto lead = static_cast<unsigned char>(text[0]);
        return lead < 0x80 ? Char{ascii_[lead], 1} : multibyte(text);
    }

  private:
    Char multibyte(std::string_view text) const;
    void set(uint32_t first, uint32_t last, CharClass cls);

    std::array<CharClass, 0x80> ascii_{};
    std::unique_ptr<CharClass[]> table_;  // [0x110000]
};

}  // namespace speedrun
