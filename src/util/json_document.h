#pragma once
// JSON text to a document tree, with limits, so that no input can exhaust memory or the stack.
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace speedrun {

using Json = nlohmann::ordered_json;  // keeps the order of keys: parameters are declared in file order

inline constexpr size_t max_json_bytes = size_t{16} << 20;
inline constexpr int max_json_depth = 64;
inline constexpr size_t max_json_keys = 10000;  // of one object

// Parses strict JSON (RFC 8259, UTF-8, numbers that fit a double). UserError, beginning "NAME:line:column
// (byte N)", for malformed text, a key given twice in one object, and anything over the limits above.
Json parse_json(std::string_view text, const std::string& name);

// The same for a file; UserError as well if it cannot be read.
Json read_json_file(const std::filesystem::path& file);

// The document of `text`, or none where parse_json would throw.
std::optional<Json> parse_json_if_valid(std::string_view text);

// JSON text with the control characters from U+007F to U+009F, which nlohmann's dump() leaves and terminals
// may obey, as \u escapes, like those below U+0020.
std::string escape_controls(std::string_view json);

// `value` for humans: members and elements that fit a line share it, otherwise one a line; control characters
// are escaped. Ends without a newline.
std::string pretty_json(const Json& value);

// `value` on one line, cut to about 80 bytes, for error messages.
std::string brief_json(const Json& value);

}  // namespace speedrun
