#include "util/text.h"

#include <cmath>

namespace speedrun {

std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c >= 0x20 && c < 0x7f)
            out.push_back(c);
        else
            out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
    return out;
}

std::string shortened(std::string text) {
    constexpr size_t longest = 80;
    if (text.size() > longest) text = text.substr(0, longest - 3) + "...";
    return text;
}

std::string in_quotes(std::string_view text) {
    return "\"" + shortened(printable(text.substr(0, 100))) + "\"";
}

std::vector<std::string> number_ranges(std::span<const int64_t> numbers) {
    std::vector<std::string> ranges;
    for (size_t first = 0, last = 0; first < numbers.size(); first = last + 1) {
        for (last = first; last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1;) ++last;
        ranges.push_back(std::to_string(numbers[first]));
        if (last > first) ranges.back().append("-").append(std::to_string(numbers[last]));
    }
    return ranges;
}

std::string number_text(NumberFormat format, double value, std::string_view none) {
    return std::isnan(value) ? std::string(none) : fmt::vformat(format, fmt::make_format_args(value));
}

}  // namespace speedrun
