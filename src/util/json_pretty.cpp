#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "util/json_document.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

constexpr size_t line_width = 120;

// One line, with a space after ':' and ','.
std::string one_line(const Json& value) {
    if (!value.is_structured()) return value.dump();
    std::string text;
    for (auto item = value.begin(); item != value.end(); ++item) {
        if (!text.empty()) text += ", ";
        if (value.is_object()) text += Json(item.key()).dump() + ": ";
        text += one_line(*item);
    }
    return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

void write(const Json& value, size_t indent, size_t used, std::string& out) {
    const std::string line = one_line(value);
    if (!value.is_structured() || value.empty() || indent + used + line.size() < line_width) {
        out += line;
        return;
    }
    const std::string margin(indent + 2, ' ');
    out += value.is_object() ? "{\n" : "[\n";
    for (auto item = value.begin(); item != value.end(); ++item) {
        if (item != value.begin()) out += ",\n";
        const std::string key = value.is_object() ? Json(item.key()).dump() + ": " : "";
        out += margin + key;
        write(*item, indent + 2, key.size(), out);
    }
    out += "\n" + std::string(indent, ' ') + (value.is_object() ? "}" : "]");
}

}  // namespace

std::string escape_controls(std::string_view json) {
    std::string out;
    while (!json.empty()) {
        const auto [bytes, code_point] = first_character(json);
        const std::string_view character = json.substr(0, std::max<size_t>(bytes, 1));
        const bool control = code_point >= 0x7f && code_point < 0xA0;
        out += control ? fmt::format("\\u{:04x}", code_point) : std::string(character);
        json.remove_prefix(character.size());
    }
    return out;
}

std::string pretty_json(const Json& value) {
    std::string out;
    write(value, 0, 0, out);
    return escape_controls(out);
}

}  // namespace speedrun
