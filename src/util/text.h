#pragma once
// Text for people: error messages, reports, tables.
#include <fmt/core.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace speedrun {

// `text` with everything but printable ASCII escaped: error texts go to terminals and logs.
std::string printable(std::string_view text);

// `text` cut to at most 80 bytes; where something was cut, "..." ends it.
std::string shortened(std::string text);

// `text` in double quotes, printable and shortened, for error messages.
std::string in_quotes(std::string_view text);

// "a, b, c": the words of any range of texts with `separator` between them.
template <typename Words>
std::string joined(const Words& words, std::string_view separator = ", ") {
    std::string text;
    for (bool first = true; const auto& word : words) {
        if (!first) text += separator;
        text += word;
        first = false;
    }
    return text;
}

// Runs of consecutive numbers of an ascending list: {0, 1, 2, 9} is "0-2", "9".
std::vector<std::string> number_ranges(std::span<const int64_t> numbers);

// How to write a number: "{:.3f}".
using NumberFormat = fmt::format_string<double>;

// `value` as `format` says, or `none` where it is not a number.
std::string number_text(NumberFormat format, double value, std::string_view none = "-");

}  // namespace speedrun
